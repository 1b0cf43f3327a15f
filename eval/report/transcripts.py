"""Episodes as data for the page: a small index of all, and compressed blocks that are opened one at a time.

Blocks are gzip in base64, which no model text can break out of; the page decompresses a block when one of its
episodes is opened and shows every text as text. JSON is pure ASCII, so that lone surrogates survive the way. When the
blocks would exceed the budget, episodes that need attention (unscored, flagged, malformed, changed sides) are kept
first and the rest is sampled evenly; the page says how many are shown.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from envs.types import Episode, JudgeCall, Outcome, Score, SeatTrace, Unscored

TokenPieces = Callable[[Sequence[int]], list[str]]
"""Text of each token, in order; the pieces concatenate to the text of the whole sequence."""

BLOCK_EPISODES = 40
_GZIP_LEVEL = 6
_SAMPLING_PROBE = 4


@dataclass(frozen=True)
class EpisodeRecord:
    """One episode with what the index needs. `key` is its permalink, equal to `eval.results.Item.key`."""

    key: str
    episode: Episode
    epoch: int = 0
    part: str | None = None
    outcome: Outcome | None = None
    """Of the policy; the first seat's when not given."""
    detail: str = ""
    """A short remark in the list, e.g. "step 12"."""

    @property
    def judged(self) -> Outcome | None:
        return self.outcome or next(iter(self.episode.outcomes.values()), None)


@dataclass(frozen=True)
class Packed:
    """What the page embeds. `index` and `blocks` are base64 of gzip of JSON."""

    index: str
    blocks: tuple[str, ...]
    shown: int
    total: int

    @property
    def size(self) -> int:
        return len(self.index) + sum(map(len, self.blocks))


def token_pieces(decode: Callable[[list[int]], str]) -> TokenPieces:
    """Pieces from a tokenizer's `decode(ids) -> text` (special tokens kept).

    A byte-level token may hold part of a character: it then gets an empty piece, and the token that completes the
    character gets the whole of it.
    """

    cache: dict[int, str] = {}

    def pieces(ids: Sequence[int]) -> list[str]:
        out: list[str] = []
        held: list[int] = []
        for i in ids:
            if i not in cache:
                cache[i] = decode([i])
            text = cache[i] if not held else decode([*held, i])
            if "\ufffd" in text and len(held) < 4:
                held.append(i)
                out.append("")
                continue
            out.append(text)
            held = []
        if held:
            out[-1] = decode(held)
        return out

    return pieces


def pack(
    runs: Sequence[tuple[str, Iterable[EpisodeRecord], TokenPieces | None]],
    *,
    max_bytes: int,
    urgent: Collection[str] = (),
) -> Packed:
    """Pack the episodes of all runs within `max_bytes`. `urgent` keys are kept before others."""
    records = [(run, record) for run, (_, members, _) in enumerate(runs) for record in members]
    payloads = [_dump(episode_payload(record.episode, runs[run][2])) if max_bytes else b"" for run, record in records]
    keep = _choose(records, payloads, max_bytes, frozenset(urgent))
    blocks: list[str] = []
    entries: list[tuple[int, int, int]] = []
    block: list[bytes] = []
    # Runs of one row side by side compress best: their prompts are the same.
    for i in sorted(keep, key=lambda i: (records[i][1].episode.row.task, records[i][1].episode.row.id, i)):
        entries.append((i, len(blocks), len(block)))
        block.append(payloads[i])
        if len(block) == BLOCK_EPISODES:
            blocks.append(_compress(b"[" + b",".join(block) + b"]"))
            block = []
    if block:
        blocks.append(_compress(b"[" + b",".join(block) + b"]"))
    index = {
        "runs": [name for name, _, _ in runs],
        "total": len(records),
        "episodes": [_entry(*records[i], number, at) for i, number, at in sorted(entries)],
    }
    return Packed(_compress(_dump(index)), tuple(blocks), len(keep), len(records))


def _choose(
    records: Sequence[tuple[int, EpisodeRecord]], payloads: Sequence[bytes], max_bytes: int, urgent: frozenset[str]
) -> list[int]:
    """Indexes of the episodes to show."""
    everything = list(range(len(records)))
    if not everything:
        return []
    ratio = _compression(payloads)
    cost = [len(p) * ratio for p in payloads]
    if sum(cost) <= max_bytes:
        return everything
    # Whole rows are kept or left out, so that every shown episode still has its partner in the other runs.
    rows: dict[tuple[str, str], list[int]] = {}
    for i in everything:
        row = records[i][1].episode.row
        rows.setdefault((row.task, row.id), []).append(i)
    order = sorted(
        rows, key=lambda r: (not any(_needs_attention(records[i][1], urgent) for i in rows[r]), _spread(r))
    )
    kept, spent = [], 0.0
    for key in order:
        price = sum(cost[i] for i in rows[key])
        if spent + price <= max_bytes:
            spent += price
            kept += rows[key]
    return sorted(kept)


def _compression(payloads: Sequence[bytes]) -> float:
    """Estimated base64 bytes per payload byte, from a few blocks of neighbours."""
    size = sum(map(len, payloads))
    step = max(1, len(payloads) // _SAMPLING_PROBE)
    probes = [b",".join(payloads[i : i + BLOCK_EPISODES]) for i in range(0, len(payloads), step)]
    raw = sum(map(len, probes))
    return sum(len(_compress(p)) for p in probes) / raw * 1.05 if raw and size else 1.0


def _spread(row: tuple[str, str]) -> bytes:
    # A fixed pseudo-random order: an even sample over tasks that does not change between renderings.
    return hashlib.blake2b("\x1f".join(row).encode("utf-8", "replace"), digest_size=8).digest()


def _needs_attention(record: EpisodeRecord, urgent: frozenset[str]) -> bool:
    outcome = record.judged
    scored = isinstance(outcome, Score)
    malformed = isinstance(outcome, Score) and outcome.format_error
    return not scored or malformed or bool(record.episode.findings) or record.key in urgent


def _entry(run: int, record: EpisodeRecord, block: int, at: int) -> list[Any]:
    episode, outcome = record.episode, record.judged
    return [
        run,
        episode.row.task,
        episode.row.id,
        record.epoch,
        record.key,
        round(outcome.value, 6) if isinstance(outcome, Score) else None,
        outcome.reason.value if isinstance(outcome, Unscored) else None,
        int(isinstance(outcome, Score) and outcome.format_error),
        sorted({f.detector for f in episode.findings}),
        record.part,
        record.detail,
        block,
        at,
    ]


def episode_payload(episode: Episode, pieces: TokenPieces | None) -> dict[str, Any]:
    """Everything that the transcript view shows of an episode."""
    return {
        "row": {"task": episode.row.task, "id": episode.row.id, "cluster": episode.row.cluster},
        "data": {str(k): v for k, v in episode.row.data.items()},
        "seed": str(episode.seed),
        "scorer": episode.scorer,
        "stop": episode.stop.value,
        "wall": round(episode.wall_s, 3),
        "outcomes": {seat: _outcome(o) for seat, o in episode.outcomes.items()},
        "says": [[s.seat, s.text, sorted(s.to) if s.to is not None else None] for s in episode.says],
        "views": {seat: [[m.role, m.content] for m in view] for seat, view in episode.views.items()},
        "traces": {s: _trace(t, pieces) for s, t in episode.traces.items() if t.segments and pieces is not None},
        "judge": [_call(c) for c in episode.judge_calls],
        "findings": [[f.detector, f.seat, f.turn, f.detail] for f in episode.findings],
        "hints": dict(episode.feedback_text),
        "feedback": {seat: [f.text, f.sees_gold] for seat, f in episode.feedback.items()},
    }


def _outcome(outcome: Outcome) -> dict[str, Any]:
    if isinstance(outcome, Score):
        return {
            "value": outcome.value,
            "parts": dict(outcome.parts),
            "format_error": outcome.format_error,
            "explanation": outcome.explanation,
        }
    return {"reason": outcome.reason.value, "detail": outcome.detail}


def _trace(trace: SeatTrace, pieces: TokenPieces) -> dict[str, Any]:
    text = pieces(trace.ids)
    segments, at = [], 0
    for s in trace.segments:
        shown = text[at : at + len(s.ids)]
        at += len(s.ids)
        one: dict[str, Any] = {"turn": s.turn, "sampled": int(s.trainable)}
        if s.trainable:
            # Log-probs in thousandths of a nat: enough to read, half the size.
            one |= {"t": shown, "ids": list(s.ids), "lp": [round(p * 1000) for p in s.logprobs or ()], "v": s.version}
        else:
            one |= {"text": "".join(shown), "n": len(s.ids)}
        segments.append(one)
    return {"learnable": int(trace.learnable), "segments": segments}


def _call(call: JudgeCall) -> dict[str, Any]:
    return {
        "role": call.role,
        "model": call.model,
        "request": json.dumps(dict(call.request), indent=2, ensure_ascii=False, default=str),
        "reply": call.reply,
        "error": call.error,
        "usd": round(call.cost_usd, 6),
        "wall": round(call.wall_s, 3),
        "cached": int(call.cached),
    }


def _dump(value: Any) -> bytes:
    # ASCII escapes keep lone surrogates, which UTF-8 cannot; NaN has no place in JSON and is a bug upstream.
    return json.dumps(value, separators=(",", ":"), ensure_ascii=True, allow_nan=False, default=str).encode("ascii")


def _compress(data: bytes) -> str:
    # mtime 0: equal episodes give an equal file.
    return base64.b64encode(gzip.compress(data, _GZIP_LEVEL, mtime=0)).decode("ascii")
