"""The one writer of a ledger: a thread that commits what was put, in groups, in the order it was put.

`put_*` never waits; `flush` returns when everything put before is durable (synchronous=FULL) and raises what went
wrong since. Another writer on the same ledger is refused by a lock that dies with the process. Putting an equal
episode under an existing key changes nothing; a different one is an error: exactly one episode per key.
"""

from __future__ import annotations

import fcntl
import queue
import sqlite3
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import orjson

from common.errors import DataError, UsageError
from envs.boundary import failure_of
from envs.ledger.codec import encode_outcome, encode_row, encode_story, encode_trace
from envs.ledger.read import LedgerReader
from envs.ledger.schema import (
    LEDGER_FILE,
    Consumed,
    EpisodeKey,
    blob_hash,
    compress,
    connect,
    sqlite_errors,
)
from envs.types import Episode, JudgeCall, Outcome, Score, SeatTrace

GROUP = 256
"""At most so many puts per transaction."""

Job = Callable[[sqlite3.Connection], None]


class Ledger(LedgerReader):
    """Writes, and reads its own writes. `folder` is made if it does not exist."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / LEDGER_FILE
        self._lock = _take_lock(path)
        try:
            self._writing = connect(path, read_only=False)
            super().__init__(folder)
        except BaseException:
            self._lock.close()
            raise
        self._queue: queue.SimpleQueue[Job | threading.Event | None] = queue.SimpleQueue()
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._work, name="ledger-writer", daemon=True)
        self._thread.start()

    def put_episode(self, key: EpisodeKey, episode: Episode) -> None:
        """Record an episode."""
        self._put(lambda db: _insert_episode(db, key, episode))

    def put_consumed(self, uses: Iterable[Consumed]) -> None:
        """Record which step trained on what; the episodes must have been put before."""
        batch = tuple(uses)
        self._put(lambda db: _insert_consumed(db, batch))

    def put_call(self, call: JudgeCall) -> None:
        """Record an API call that belongs to no episode."""
        self._put(lambda db: _insert_call(db, None, call))

    def rewind(self, step: int) -> None:
        """Forget training uses by steps after `step`: a run that resumes from that step's checkpoint makes them anew.

        Episodes stay: they are what the resumed run need not sample again.
        """
        self._put(lambda db: _ignore(db.execute("DELETE FROM consumed WHERE step>?", (step,))))
        self.flush()

    def flush(self, timeout_s: float = 120.0) -> None:
        """Wait until everything put so far is on disk. Raises what went wrong, or DataError at the deadline."""
        done = threading.Event()
        self._queue.put(done)
        if not done.wait(timeout_s):
            raise DataError(
                f"the ledger's writer did not answer within {timeout_s} s", where=str(self.path), fix="check the disk"
            )
        self._raise_failure()

    def close(self) -> None:
        """Flush, stop the writer, close."""
        if self._lock.closed:
            return
        self._queue.put(None)
        self._thread.join()
        self._writing.close()
        super().close()
        self._lock.close()
        self._raise_failure()

    def _query(self, sql: str, values: tuple[Any, ...] = ()) -> list[Any]:
        self.flush()
        return super()._query(sql, values)

    def _put(self, job: Job) -> None:
        self._raise_failure()
        self._queue.put(job)

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _work(self) -> None:
        running = True
        while running:
            group = [self._queue.get()]
            while len(group) < GROUP and not self._queue.empty():
                group.append(self._queue.get())
            running = None not in group
            jobs = [g for g in group if g is not None and not isinstance(g, threading.Event)]
            if jobs and self._failure is None:
                self._commit(jobs)
            for waiting in group:
                if isinstance(waiting, threading.Event):
                    waiting.set()

    def _commit(self, jobs: list[Job]) -> None:
        """All of `jobs` in one transaction; after a failure nothing more is written."""

        def transaction() -> None:
            with sqlite_errors(self.path):
                self._writing.execute("BEGIN IMMEDIATE")
                for job in jobs:
                    job(self._writing)
                self._writing.execute("COMMIT")

        # Any failure: of a dead writer waiters would learn at their deadline only, and `close` never.
        self._failure = failure_of(transaction)
        if self._failure is not None:
            failure_of(self._writing.rollback)


def _take_lock(path: Path) -> TextIO:
    lock = path.with_suffix(".lock").open("a")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise UsageError(
            "another process writes this ledger",
            where=str(path),
            fix="wait for it, stop it, or use another folder",
        ) from None
    return lock


def _ignore(_: object) -> None:
    return None


def _insert_blob(db: sqlite3.Connection, data: bytes) -> bytes:
    name = blob_hash(data)
    if not db.execute("SELECT 1 FROM blobs WHERE hash=?", (name,)).fetchone():
        db.execute("INSERT INTO blobs VALUES (?, ?)", (name, compress(data)))
    return name


def _insert_episode(db: sqlite3.Connection, key: EpisodeKey, episode: Episode) -> None:
    traces = {seat: encode_trace(trace) for seat, trace in episode.traces.items()}
    outcomes = {seat: orjson.dumps(encode_outcome(o)).decode() for seat, o in episode.outcomes.items()}
    digest = blob_hash(orjson.dumps([episode.seed, *outcomes.values()]) + b"".join(traces.values()))
    old = db.execute(
        "SELECT digest FROM episodes WHERE phase=? AND step=? AND prompt_id=? AND sample=?",
        (key.phase, key.step, key.prompt_id, key.sample),
    ).fetchone()
    if old is not None:
        if old[0] != digest:
            raise DataError(
                f"another episode is recorded as {key}",
                where="ledger",
                fix="read recorded episodes with episodes() before playing, and do not play them again",
            )
        return
    ident = db.execute(
        "INSERT INTO episodes (phase, step, prompt_id, sample, task, seed, scorer, stop, turns, wall_s, row, story, "
        "digest) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)",
        (
            *(key.phase, key.step, key.prompt_id, key.sample),
            *(episode.row.task, episode.seed, episode.scorer, episode.stop.value, episode.turns, episode.wall_s),
            _insert_blob(db, encode_row(episode.row)),
            _insert_blob(db, encode_story(episode)),
            digest,
        ),
    ).lastrowid
    for position, (seat, trace) in enumerate(episode.traces.items()):
        values = _seat_columns(trace, episode.outcomes.get(seat))
        row = (ident, position, seat, *values[:4], outcomes.get(seat), *values[4:], _insert_blob(db, traces[seat]))
        db.execute(f"INSERT INTO seats VALUES ({','.join('?' * len(row))})", row)
    for call in episode.judge_calls:
        _insert_call(db, ident, call)


def _seat_columns(trace: SeatTrace, outcome: Outcome | None) -> tuple[Any, ...]:
    """learnable, score, format_error, unscored, prompt_tokens, sampled_tokens, min_version, max_version."""
    versions = [s.version for s in trace.segments if s.version is not None]
    score = outcome if isinstance(outcome, Score) else None
    failure = None if outcome is None or isinstance(outcome, Score) else outcome.reason.value
    return (
        *(trace.learnable, score and score.value, score and score.format_error, failure),
        *(sum(len(s.ids) for s in trace.segments) - trace.sampled, trace.sampled),
        *(min(versions, default=None), max(versions, default=None)),
    )


def _insert_call(db: sqlite3.Connection, episode: int | None, call: JudgeCall) -> None:
    db.execute(
        "INSERT INTO calls (episode, role, model, request, reply, error, cost_usd, wall_s, prompt_tokens, "
        "completion_tokens, cached) VALUES (?,?,?,?,?,?,?,?,?,?,?)",
        (
            *(episode, call.role, call.model, _insert_blob(db, orjson.dumps(call.request)), call.reply, call.error),
            *(call.cost_usd, call.wall_s, call.prompt_tokens, call.completion_tokens, call.cached),
        ),
    )


def _insert_consumed(db: sqlite3.Connection, uses: Iterable[Consumed]) -> None:
    for use in uses:
        found = db.execute(
            "SELECT id FROM episodes WHERE phase=? AND step=? AND prompt_id=? AND sample=?",
            (use.key.phase, use.key.step, use.key.prompt_id, use.key.sample),
        ).fetchone()
        if found is None:
            raise DataError(f"no episode {use.key} to consume", where="ledger", fix="put the episode first")
        weights = None if use.weights is None else _insert_blob(db, np.asarray(use.weights, "<f8").tobytes())
        row = (use.step, found[0], use.seat, use.context, use.component, use.advantage, weights)
        old = db.execute(
            "SELECT step, episode, seat, context, component, advantage, weights FROM consumed "
            "WHERE step=? AND episode=? AND seat=? AND context=? AND component=?",
            row[:5],
        ).fetchone()
        if old is None:
            db.execute("INSERT INTO consumed VALUES (?,?,?,?,?,?,?)", row)
        elif old != row:
            raise DataError(
                f"step {use.step} already consumed {use.key} with another advantage or weights",
                where="ledger",
                fix="call rewind(step of the checkpoint) when resuming",
            )
