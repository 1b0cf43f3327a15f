"""Two deadlines for one task, the whole and the part under way, on one timer that is moved only when it must be.

`asyncio.timeout` sets and cancels a timer for every turn of every episode; here a later deadline costs one
assignment, because a timer that fires early only sets itself again. Used by `play` (one per episode); at a deadline
the task is cancelled where it waits, and the `async with` block raises TimeoutError. A cancellation from outside
passes through as such.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

NEVER = float("inf")


class Deadlines:
    """Guards the task that enters it."""

    def __init__(self, whole_s: float) -> None:
        self._whole_s = whole_s
        self._whole = self._part = NEVER
        self._timer: asyncio.TimerHandle | None = None
        self.part_expired = False
        """The deadline that passed was the part's."""
        self._expired = False

    async def __aenter__(self) -> Self:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("deadlines guard a task")
        self._task, self._cancelling = task, task.cancelling()
        self._loop = asyncio.get_running_loop()
        self._whole = self._loop.time() + self._whole_s
        self._set()
        return self

    def begin_part(self, timeout_s: float) -> None:
        """What follows must end within `timeout_s`."""
        self._part = self._loop.time() + timeout_s
        if self._timer is not None and self._part < self._timer.when():
            self._set()

    def end_part(self) -> None:
        """Only the whole's deadline counts again."""
        self._part = NEVER

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._expired:
            return
        if (
            self._task.uncancel() <= self._cancelling
            and kind is not None
            and issubclass(kind, asyncio.CancelledError)
        ):
            raise TimeoutError from error

    def _set(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(min(self._whole, self._part), self._fired)

    def _fired(self) -> None:
        now = self._loop.time()
        self._timer = None
        if now < min(self._whole, self._part):
            self._set()
            return
        self._expired, self.part_expired = True, self._part <= self._whole
        self._task.cancel()
