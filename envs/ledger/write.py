"""The one writer of a ledger: a thread that commits what was put, in groups, in the order it was put.

`put_*` never waits; `flush` returns when everything put before is durable (synchronous=FULL) and raises what went
wrong since. Another writer on the same ledger is refused by a lock that dies with the process. Putting an equal
episode under an existing key changes nothing; a different one is an error: exactly one episode per key. A ledger that
exists is checked page by page before anything is added to it.
"""

from __future__ import annotations

import fcntl
import queue
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TextIO

from common.errors import DataError, UsageError
from envs.boundary import failure_of
from envs.ledger.read import LedgerReader
from envs.ledger.schema import LEDGER_FILE, Consumed, EpisodeKey, connect, sqlite_errors
from envs.ledger.tables import Tables
from envs.types import Episode, JudgeCall

GROUP = 256
"""At most so many puts per transaction."""

Job = Callable[[Tables], None]


class Ledger(LedgerReader):
    """Writes, and reads its own writes. `folder` is made if it does not exist."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / LEDGER_FILE
        self._queue: queue.SimpleQueue[Job | threading.Event | None] = queue.SimpleQueue()
        self._failure: Exception | None = None
        self._lock = _take_lock(path)
        existed = path.is_file()
        try:
            self._writing = connect(path, read_only=False)
            super().__init__(folder)
            if existed:
                self._check_pages()  # what is added to a damaged file would be lost with it
            self._tables = Tables(self._writing)
        except BaseException:
            self._lock.close()
            raise
        self._thread = threading.Thread(target=self._work, name="ledger-writer", daemon=True)
        self._thread.start()

    def put_episode(self, key: EpisodeKey, episode: Episode) -> None:
        """Record an episode."""
        self._put(lambda tables: tables.add_episode(key, episode))

    def put_consumed(self, uses: Iterable[Consumed]) -> None:
        """Record which step trained on what; the episodes must have been put before."""
        batch = tuple(uses)
        self._put(lambda tables: tables.add_consumed(batch))

    def put_call(self, call: JudgeCall) -> None:
        """Record an API call that belongs to no episode."""
        self._put(lambda tables: tables.add_call(None, call))

    def rewind(self, step: int) -> None:
        """Forget training uses by steps after `step`: a run that resumes from that step's checkpoint makes them anew.

        Episodes stay: they are what the resumed run need not sample again.
        """
        self._put(lambda tables: tables.rewind(step))
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
        super().close()
        self._writing.close()  # the last to close moves the log into the one file, which a reader may not
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
                    job(self._tables)
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
