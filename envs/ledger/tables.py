"""Rows into the ledger's tables. Runs in the writer's thread, inside its transaction (write.py).

Statements are few and in groups: with hundreds of episodes that end at once, their number is what recording costs.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import orjson
import zstandard

from common.errors import DataError
from envs.ledger.codec import encode_outcome, encode_row, encode_story, encode_trace
from envs.ledger.schema import ZSTD_LEVEL, Consumed, EpisodeKey, blob_hash, episode_digest
from envs.types import Episode, JudgeCall, Outcome, Score, SeatTrace

REMEMBERED_BLOBS = 65_536
SEAT_COLUMNS = 13


class Tables:
    """Inserts. After an exception the transaction must be rolled back and this object thrown away."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._compressor = zstandard.ZstdCompressor(level=ZSTD_LEVEL)
        self._written: set[bytes] = set()
        """Blobs that are surely there: a group's samples share their row."""

    def rewind(self, step: int) -> None:
        self._db.execute("DELETE FROM consumed WHERE step>?", (step,))

    def add_episode(self, key: EpisodeKey, episode: Episode) -> None:
        """Raises DataError when another episode has this key; an equal one changes nothing."""
        traces = [encode_trace(trace) for trace in episode.traces.values()]
        outcomes = {seat: orjson.dumps(encode_outcome(o)).decode() for seat, o in episode.outcomes.items()}
        digest = episode_digest(episode.seed, [outcomes[s] for s in episode.traces if s in outcomes], traces)
        contents = [encode_row(episode.row), encode_story(episode), *traces]
        names = [blob_hash(content) for content in contents]
        added = self._db.execute(
            "INSERT INTO episodes (phase, step, prompt_id, sample, task, seed, scorer, stop, turns, wall_s, row, "
            "story, digest) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?) "
            "ON CONFLICT (phase, step, prompt_id, sample) DO NOTHING",
            (
                *(key.phase, key.step, key.prompt_id, key.sample),
                *(episode.row.task, episode.seed, episode.scorer, episode.stop.value, episode.turns, episode.wall_s),
                *(names[0], names[1], digest),
            ),
        )
        if not added.rowcount:
            self._check_same(key, digest)
            return
        self._add_blobs(names, contents)
        ident = added.lastrowid
        seats = []
        for position, (seat, trace) in enumerate(episode.traces.items()):
            columns = _seat_columns(trace, episode.outcomes.get(seat))
            seats.append((ident, position, seat, *columns[:4], outcomes.get(seat), *columns[4:], names[2 + position]))
        self._db.executemany(f"INSERT INTO seats VALUES ({','.join('?' * SEAT_COLUMNS)})", seats)
        for call in episode.judge_calls:
            self.add_call(ident, call)

    def _check_same(self, key: EpisodeKey, digest: bytes) -> None:
        if self._episode(key, "digest") != digest:
            raise DataError(
                f"another episode is recorded as {key}",
                where="ledger",
                fix="read recorded episodes with episodes() before playing, and do not play them again",
            )

    def add_call(self, episode: int | None, call: JudgeCall) -> None:
        content = orjson.dumps(call.request)
        request = blob_hash(content)
        self._add_blobs([request], [content])
        self._db.execute(
            "INSERT INTO calls (episode, role, model, request, reply, error, cost_usd, wall_s, prompt_tokens, "
            "completion_tokens, cached) VALUES (?,?,?,?,?,?,?,?,?,?,?)",
            (
                *(episode, call.role, call.model, request, call.reply, call.error),
                *(call.cost_usd, call.wall_s, call.prompt_tokens, call.completion_tokens, call.cached),
            ),
        )

    def add_consumed(self, uses: Iterable[Consumed]) -> None:
        for use in uses:
            found = self._episode(use.key, "id")
            if found is None:
                raise DataError(f"no episode {use.key} to consume", where="ledger", fix="put the episode first")
            weights = None
            if use.weights is not None:
                content = np.asarray(use.weights, "<f8").tobytes()
                weights = blob_hash(content)
                self._add_blobs([weights], [content])
            row = (use.step, found, use.seat, use.context, use.component, use.advantage, weights)
            old = self._db.execute(
                "SELECT step, episode, seat, context, component, advantage, weights FROM consumed "
                "WHERE step=? AND episode=? AND seat=? AND context=? AND component=?",
                row[:5],
            ).fetchone()
            if old is None:
                self._db.execute("INSERT INTO consumed VALUES (?,?,?,?,?,?,?)", row)
            elif old != row:
                raise DataError(
                    f"step {use.step} already consumed {use.key} with another advantage or weights",
                    where="ledger",
                    fix="call rewind(step of the checkpoint) when resuming",
                )

    def _episode(self, key: EpisodeKey, column: str) -> Any:
        found = self._db.execute(
            f"SELECT {column} FROM episodes WHERE phase=? AND step=? AND prompt_id=? AND sample=?",
            (key.phase, key.step, key.prompt_id, key.sample),
        ).fetchone()
        return found and found[0]

    def _add_blobs(self, names: Sequence[bytes], contents: Sequence[bytes]) -> None:
        """Store what is not there yet."""
        new = {name: content for name, content in zip(names, contents, strict=True) if name not in self._written}
        self._db.executemany(
            "INSERT OR IGNORE INTO blobs VALUES (?, ?)",
            [(name, self._compressor.compress(content)) for name, content in new.items()],
        )
        if len(self._written) + len(new) > REMEMBERED_BLOBS:
            self._written.clear()
        self._written |= new.keys()


def _seat_columns(trace: SeatTrace, outcome: Outcome | None) -> tuple[Any, ...]:
    """learnable, score, format_error, unscored, prompt_tokens, sampled_tokens, min_version, max_version."""
    given = sampled = 0
    versions = set()
    for segment in trace.segments:
        if segment.trainable:
            sampled += len(segment.ids)
        else:
            given += len(segment.ids)
        if segment.version is not None:
            versions.add(segment.version)
    score = outcome if isinstance(outcome, Score) else None
    failure = None if outcome is None or isinstance(outcome, Score) else outcome.reason.value
    return (
        *(trace.learnable, score and score.value, score and score.format_error, failure),
        *(given, sampled, min(versions, default=None), max(versions, default=None)),
    )
