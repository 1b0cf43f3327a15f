"""Episodes as Parquet: one line per episode and evaluation, with score, parts, and what was asked and said.

Texts come from the run's ledger where there is one; the columns are there without it, empty.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import orjson

from common.files import write_bytes
from envs.types import Episode
from eval.results import Item, Results, TaskResult


def export_parquet(results: Iterable[Results], path: Path, episodes: Mapping[str, Episode] | None = None) -> int:
    """Write `path` atomically; returns the number of lines. episodes: recorded ones by key."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    found = episodes or {}
    rows = [_line(r, t, i, found.get(i.key)) for r in results for t in r.tasks for i in t.items]
    schema = pa.schema(
        [(name, pa.string()) for name in ("run", "model", "task")]
        + [("task_version", pa.int32())]
        + [(name, pa.string()) for name in ("axis", "profile", "row")]
        + [("epoch", pa.int32()), ("cluster", pa.string()), ("key", pa.string()), ("value", pa.float64())]
        + [("reason", pa.string()), ("format_error", pa.bool_()), ("parts", pa.map_(pa.string(), pa.float64()))]
        + [(name, pa.string()) for name in ("said", "row_data", "stop")]
        + [("sampled_tokens", pa.int32()), ("cost_usd", pa.float64()), ("flags", pa.list_(pa.string()))]
    )
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), sink, compression="zstd")
    write_bytes(path, sink.getvalue().to_pybytes())
    return len(rows)


def _line(r: Results, t: TaskResult, i: Item, episode: Episode | None) -> dict[str, Any]:
    line: dict[str, Any] = {
        "run": r.name, "model": r.model, "task": t.task, "task_version": t.version, "axis": t.axis,
        "profile": t.profile, "row": i.row, "epoch": i.epoch, "cluster": i.cluster, "key": i.key,
        "value": i.value, "reason": i.reason, "format_error": i.format_error, "parts": list(i.parts.items()),
    }  # fmt: skip
    if episode is not None:
        line |= {
            "said": orjson.dumps([[s.seat, s.text] for s in episode.says]).decode(),
            "row_data": orjson.dumps(dict(episode.row.data), default=str).decode(),
            "stop": episode.stop.value,
            "sampled_tokens": sum(trace.sampled for trace in episode.traces.values()),
            "cost_usd": sum(call.cost_usd for call in episode.judge_calls),
            "flags": sorted({f.detector for f in episode.findings}),
        }
    return line
