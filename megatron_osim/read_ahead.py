"""Reads the next step's micro-batches in a thread while this step trains. What is read never depends on it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from megatron_osim.batch import PackedBatch

Read = Callable[[int], list[PackedBatch]]


class ReadAhead:
    """One step ahead at most, and none past `steps`."""

    def __init__(self, read: Read, steps: int) -> None:
        self._read, self._steps = read, steps
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="read-ahead")
        self._ahead: dict[int, Future[list[PackedBatch]]] = {}

    def step(self, step: int) -> list[PackedBatch]:
        """Micro-batches of `step`; raises what reading them raised."""
        ahead = self._ahead.pop(step, None)
        self._ahead.clear()
        batches = self._read(step) if ahead is None else ahead.result()
        if step + 1 < self._steps:
            self._ahead[step + 1] = self._thread.submit(self._read, step + 1)
        return batches

    def settle(self) -> None:
        """Return when the thread is idle."""
        for future in self._ahead.values():
            future.exception()

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown(cancel_futures=True)
