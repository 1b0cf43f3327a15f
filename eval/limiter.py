"""How many episodes are in flight: fixed, or growing while all goes well and shrinking on failures.

The rule of congestion control: per full round without a failure the limit doubles (slow start), after the first
failure it grows by one; a failure cuts it to 0.8 of it, once per round. One event loop; no locks.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from eval.config import ConcurrencyConfig

SHRINK = 0.8


class Limiter:
    """`async with limiter.slot()` around each episode; report each outcome with `succeeded` or `strained`."""

    def __init__(self, config: ConcurrencyConfig) -> None:
        self._config = config
        self.limit = min(config.start, config.limit) if config.adaptive else config.limit
        self._running = 0
        self._clean = 0
        self._since_cut = 0
        self._slow_start = True
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        async with self._changed:
            await self._changed.wait_for(lambda: self._running < self.limit)
            self._running += 1
        try:
            yield
        finally:
            async with self._changed:
                self._running -= 1
                self._changed.notify_all()

    def succeeded(self) -> None:
        self._clean += 1
        self._since_cut += 1
        if self._config.adaptive and self._clean >= self.limit and self.limit < self._config.limit:
            self.limit = min(self._config.limit, 2 * self.limit if self._slow_start else self.limit + 1)
            self._clean = 0

    def strained(self) -> None:
        """An engine or partner failed: fewer at once."""
        self._clean, self._slow_start = 0, False
        if self._config.adaptive and self._since_cut >= self.limit // 2:
            self.limit = max(1, int(self.limit * SHRINK))
            self._since_cut = 0
