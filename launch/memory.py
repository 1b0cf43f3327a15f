"""The most memory that a command and what it started held at once, by sampling. Runs as a thread of the command."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Self

import psutil

SAMPLE_S = 1.0
GIB = 2**30


class PeakMemory:
    """Sum of resident memory over the process tree; pages that processes share are counted in each."""

    def __init__(self) -> None:
        self.peak_gib = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="memory-watch", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        own = psutil.Process()
        while True:
            self.peak_gib = max(self.peak_gib, sum(map(_resident, [own, *own.children(recursive=True)])) / GIB)
            if self._stop.wait(SAMPLE_S):
                return


def _resident(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0
