"""Episodes as bytes and back, exactly. Pure.

Token ids are int32 and log-probs float64 arrays (an engine's float32 value is kept bit for bit); the rest is JSON, in
which floats round-trip. `decode_episode(encode_episode(e)) == e` for every episode (tests/envs/ledger/test_codec.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from itertools import chain
from typing import Any

import numpy as np
import orjson

from envs.types import (
    Episode,
    FailureReason,
    Feedback,
    Finding,
    JudgeCall,
    Message,
    Outcome,
    Row,
    Say,
    Score,
    Seat,
    SeatTrace,
    Segment,
    Stop,
    Unscored,
)

ID_DTYPE, LOGPROB_DTYPE = np.dtype("<i4"), np.dtype("<f8")
HEADER_LENGTH_BYTES = 4
SCORE_FIELDS = tuple(f.name for f in fields(Score))


def encode_trace(trace: SeatTrace) -> bytes:
    """Header length (u32), JSON header, ids, log-probs of the trainable segments."""
    plain = trace.plain_prompt
    header = orjson.dumps(
        {
            "seat": trace.seat,
            "learnable": trace.learnable,
            "plain": None if plain is None else len(plain),
            "segments": [[len(s.ids), s.trainable, s.turn, s.version] for s in trace.segments],
        }
    )
    data = len(header).to_bytes(HEADER_LENGTH_BYTES, "little") + header
    if not trace.segments and not plain:
        return data
    ids = np.fromiter(chain(plain or (), chain.from_iterable(s.ids for s in trace.segments)), ID_DTYPE)
    logprobs = np.fromiter(chain.from_iterable(s.logprobs or () for s in trace.segments), LOGPROB_DTYPE)
    return data + ids.tobytes() + logprobs.tobytes()


def decode_trace(data: bytes) -> SeatTrace:
    """Inverse of `encode_trace`."""
    start = HEADER_LENGTH_BYTES + int.from_bytes(data[:HEADER_LENGTH_BYTES], "little")
    header = orjson.loads(data[HEADER_LENGTH_BYTES:start])
    shapes = header["segments"]
    if any(length < 0 for length, *_ in shapes) or (header["plain"] or 0) < 0:
        raise ValueError("a segment of negative length")
    n_plain = header["plain"] or 0
    n_ids = n_plain + sum(length for length, *_ in shapes)
    ids = np.frombuffer(data, ID_DTYPE, n_ids, start).tolist()
    logprobs = np.frombuffer(data, LOGPROB_DTYPE, -1, start + n_ids * ID_DTYPE.itemsize).tolist()
    segments, at, p_at = [], n_plain, 0
    for length, trainable, turn, version in shapes:
        own = tuple(logprobs[p_at : p_at + length]) if trainable else None
        p_at += length if trainable else 0
        segments.append(Segment(tuple(ids[at : at + length]), trainable, turn, own, version))
        at += length
    if p_at != len(logprobs):
        raise ValueError(f"{len(logprobs)} log-probs for {p_at} sampled ids")
    plain = None if header["plain"] is None else tuple(ids[:n_plain])
    return SeatTrace(header["seat"], header["learnable"], tuple(segments), plain)


def encode_outcome(outcome: Outcome) -> dict[str, Any]:
    """As JSON values."""
    if isinstance(outcome, Score):
        score = {name: getattr(outcome, name) for name in SCORE_FIELDS}
        return {"score": {**score, "parts": dict(outcome.parts)}}
    return {"unscored": {"reason": outcome.reason.value, "detail": outcome.detail}}


def decode_outcome(value: Mapping[str, Any]) -> Outcome:
    """Inverse of `encode_outcome`."""
    if "score" in value:
        return Score(**value["score"])
    return Unscored(FailureReason(value["unscored"]["reason"]), value["unscored"]["detail"])


def encode_story(episode: Episode) -> bytes:
    """Everything but row, traces, outcomes and judge calls, which the ledger keeps by themselves."""
    return orjson.dumps(
        {
            "seed": episode.seed,
            "setting_seed": episode.setting_seed,
            "says": [[s.seat, s.text, sorted(s.to) if s.to is not None else None] for s in episode.says],
            "views": {seat: [[m.role, m.content] for m in view] for seat, view in episode.views.items()},
            "opening": dict(episode.opening),
            "findings": [asdict(f) for f in episode.findings],
            "wall_s": episode.wall_s,
            "scorer": episode.scorer,
            "stop": episode.stop.value,
            "turns": episode.turns,
            "feedback_text": dict(episode.feedback_text),
            "feedback": {seat: asdict(f) for seat, f in episode.feedback.items()},
        }
    )


def decode_episode(
    row: Row,
    story: bytes,
    traces: Mapping[Seat, bytes],
    outcomes: Mapping[Seat, Outcome],
    judge_calls: tuple[JudgeCall, ...],
) -> Episode:
    """An episode from its parts."""
    s = orjson.loads(story)
    return Episode(
        row=row,
        seed=s["seed"],
        says=tuple(Say(seat, text, None if to is None else frozenset(to)) for seat, text, to in s["says"]),
        views={seat: tuple(Message(role, text) for role, text in view) for seat, view in s["views"].items()},
        traces={seat: decode_trace(data) for seat, data in traces.items()},
        outcomes=dict(outcomes),
        judge_calls=judge_calls,
        findings=tuple(Finding(**f) for f in s["findings"]),
        wall_s=s["wall_s"],
        scorer=s["scorer"],
        stop=Stop(s["stop"]),
        turns=s["turns"],
        setting_seed=s["setting_seed"],
        opening=s["opening"],
        feedback_text=s["feedback_text"],
        feedback={seat: Feedback(**f) for seat, f in s["feedback"].items()},
    )


def encode_row(row: Row) -> bytes:
    """As JSON."""
    return orjson.dumps({"task": row.task, "id": row.id, "cluster": row.cluster, "data": row.data})


def decode_row(data: bytes) -> Row:
    """Inverse of `encode_row`."""
    return Row(**orjson.loads(data))
