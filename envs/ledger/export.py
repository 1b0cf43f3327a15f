"""The ledger as Parquet files, for notebooks and other tools: episodes, seats (with tokens), calls, consumed.

Written to a temporary folder and made visible by one rename. Memory is bounded by one row group.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from common.files import atomic_directory
from envs.ledger.read import LedgerReader
from envs.ledger.schema import Recorded
from envs.types import JudgeCall, Score, Unscored

ROW_GROUP = 1000

KEY = [("phase", pa.string()), ("step", pa.int64()), ("prompt_id", pa.string()), ("sample", pa.int64())]
EPISODES = pa.schema(
    [
        *KEY,
        ("task", pa.string()),
        ("seed", pa.int64()),
        ("scorer", pa.string()),
        ("stop", pa.string()),
        ("turns", pa.int64()),
        ("wall_s", pa.float64()),
        ("row", pa.string()),
        ("says", pa.list_(pa.struct([("seat", pa.string()), ("text", pa.string())]))),
    ]
)
SEATS = pa.schema(
    [
        *KEY,
        ("seat", pa.string()),
        ("learnable", pa.bool_()),
        ("score", pa.float64()),
        ("format_error", pa.bool_()),
        ("unscored", pa.string()),
        ("parts", pa.map_(pa.string(), pa.float64())),
        ("ids", pa.list_(pa.int32())),
        ("trainable", pa.list_(pa.bool_())),
        ("logprobs", pa.list_(pa.float64())),
        ("versions", pa.list_(pa.int64())),
    ]
)
CALLS = pa.schema(
    [
        *KEY,
        ("role", pa.string()),
        ("model", pa.string()),
        ("request", pa.string()),
        ("reply", pa.string()),
        ("error", pa.string()),
        ("cost_usd", pa.float64()),
        ("wall_s", pa.float64()),
        ("prompt_tokens", pa.int64()),
        ("completion_tokens", pa.int64()),
        ("cached", pa.bool_()),
    ]
)
"""Calls that belong to no episode have no key."""
CONSUMED = pa.schema(
    [
        ("consumed_by_step", pa.int64()),
        *KEY,
        ("seat", pa.string()),
        ("context", pa.string()),
        ("component", pa.string()),
        ("advantage", pa.float64()),
        ("weights", pa.list_(pa.float64())),
    ]
)


def export_parquet(reader: LedgerReader, folder: Path) -> Path:
    """Write `folder`/{episodes,seats,calls,consumed}.parquet; an existing folder is replaced."""
    with atomic_directory(folder) as out:
        _write(out / "episodes.parquet", EPISODES, (_episode(r) for r in reader.episodes()))
        _write(out / "seats.parquet", SEATS, (s for r in reader.episodes() for s in _seats(r)))
        _write(out / "calls.parquet", CALLS, _calls(reader))
        _write(out / "consumed.parquet", CONSUMED, _consumed(reader))
    return folder


def _write(path: Path, schema: pa.Schema, rows: Iterable[Mapping[str, Any]]) -> None:
    source = iter(rows)
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        while group := list(islice(source, ROW_GROUP)):
            writer.write_table(pa.Table.from_pylist(group, schema=schema))


def _key(recorded: Recorded) -> dict[str, Any]:
    key = recorded.key
    return {"phase": key.phase, "step": key.step, "prompt_id": key.prompt_id, "sample": key.sample}


def _episode(recorded: Recorded) -> dict[str, Any]:
    e = recorded.episode
    return {
        **_key(recorded),
        "task": e.row.task,
        "seed": e.seed,
        "scorer": e.scorer,
        "stop": e.stop.value,
        "turns": e.turns,
        "wall_s": e.wall_s,
        "row": orjson.dumps(e.row.data).decode(),
        "says": [{"seat": s.seat, "text": s.text} for s in e.says],
    }


def _seats(recorded: Recorded) -> Iterator[dict[str, Any]]:
    for seat, trace in recorded.episode.traces.items():
        outcome = recorded.episode.outcomes.get(seat)
        score = outcome if isinstance(outcome, Score) else None
        yield {
            **_key(recorded),
            "seat": seat,
            "learnable": trace.learnable,
            "score": score.value if score else None,
            "format_error": score.format_error if score else None,
            "unscored": outcome.reason.value if isinstance(outcome, Unscored) else None,
            "parts": list(score.parts.items()) if score else None,
            "ids": trace.ids,
            "trainable": trace.trainable_mask,
            "logprobs": trace.logprobs,
            "versions": trace.versions,
        }


def _calls(reader: LedgerReader) -> Iterator[dict[str, Any]]:
    for recorded in reader.episodes():
        yield from (_call(call, _key(recorded)) for call in recorded.episode.judge_calls)
    yield from (_call(call, {}) for call in reader.loose_calls())


def _call(call: JudgeCall, key: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **key,
        "role": call.role,
        "model": call.model,
        "request": orjson.dumps(call.request).decode(),
        "reply": call.reply,
        "error": call.error,
        "cost_usd": call.cost_usd,
        "wall_s": call.wall_s,
        "prompt_tokens": call.prompt_tokens,
        "completion_tokens": call.completion_tokens,
        "cached": call.cached,
    }


def _consumed(reader: LedgerReader) -> Iterator[dict[str, Any]]:
    for use in reader.consumed():
        key = use.key
        yield {
            "consumed_by_step": use.step,
            "phase": key.phase,
            "step": key.step,
            "prompt_id": key.prompt_id,
            "sample": key.sample,
            "seat": use.seat,
            "context": use.context,
            "component": use.component,
            "advantage": use.advantage,
            "weights": use.weights,
        }
