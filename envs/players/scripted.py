"""A seat that says what a script gives it: for tests, baselines and conformance checks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from envs.players.base import Ask, PlayerFailed, Said
from envs.types import Limits, Seat, SeatTrace


@dataclass(frozen=True)
class ScriptedPlayer:
    """Says `script[0]`, `script[1]` …, or what a pure function of the ask returns."""

    script: Sequence[str] | Callable[[Ask], str]
    token_exact: bool = False

    def join(self, seat: Seat, *, learnable: bool, limits: Limits, episode_id: str) -> ScriptedSession:
        return ScriptedSession(self.script, seat)


class ScriptedSession:
    """One seat in one episode."""

    def __init__(self, script: Sequence[str] | Callable[[Ask], str], seat: Seat) -> None:
        self._script, self._seat, self._next = script, seat, 0

    async def act(self, ask: Ask) -> Said:
        if callable(self._script):
            return Said(self._script(ask))
        if self._next >= len(self._script):
            raise PlayerFailed(f"the script of seat {self._seat!r} has only {len(self._script)} lines")
        self._next += 1
        return Said(self._script[self._next - 1])

    def trace(self) -> SeatTrace:
        return SeatTrace(self._seat, learnable=False)
