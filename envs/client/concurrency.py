"""How many requests may be in flight to one endpoint: found out, not configured.

Slow start: the limit doubles after each full round of successes until the first rate-limit answer; such an answer
cuts it to 0.8 (once for all requests that were in flight then) and pauses everybody for its Retry-After; after
that it grows by one per full round. Waiting requests go first come, first served.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

START = 16
CUT = 0.8
MAX_PAUSE_S = 3600.0
"""What an endpoint may ask of everybody; a question's own deadline is shorter."""


class AdaptiveLimit:
    """Belongs to one event loop."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.limit = min(START, most)
        self.in_flight = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._successes = 0
        self._slow_start = True
        self._generation = 0
        self._paused_until = 0.0

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[int]:
        """Hold one slot; gives the generation that `rate_limited` wants back."""
        await self._enter()
        try:
            await self._pause()
            yield self._generation
        finally:
            self.in_flight -= 1
            self._wake()

    def succeeded(self) -> None:
        """A request was answered: grow after each full round."""
        self._successes += 1
        if self._successes >= self.limit:
            self._successes = 0
            self.limit = min(self.most, self.limit * 2 if self._slow_start else self.limit + 1)
            self._wake()

    def rate_limited(self, generation: int, pause_s: float) -> None:
        """A request that began in `generation` was told to slow down."""
        now = asyncio.get_running_loop().time()
        self._paused_until = max(self._paused_until, now + min(pause_s, MAX_PAUSE_S))
        if generation == self._generation:
            self._generation += 1
            self._slow_start = False
            self._successes = 0
            self.limit = max(1, int(self.limit * CUT))

    async def _enter(self) -> None:
        if self.in_flight < self.limit and not self._waiting:
            self.in_flight += 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.in_flight -= 1
                self._wake()
            raise

    async def _pause(self) -> None:
        loop = asyncio.get_running_loop()
        while (rest := self._paused_until - loop.time()) > 0:
            await asyncio.sleep(rest)

    def _wake(self) -> None:
        while self._waiting and self.in_flight < self.limit:
            turn = self._waiting.popleft()
            if not turn.done():
                self.in_flight += 1
                turn.set_result(None)
