"""A seat that says again what it said in a recorded episode: replay, and fork at any turn.

With `then`, the seat is handed to another player after its first `turns` turns: an engine goes on from exactly the
recorded tokens (its context is restored, not rendered anew).
"""

from __future__ import annotations

from dataclasses import dataclass

from envs.players.base import Ask, Player, PlayerFailed, Said, Session
from envs.players.engine import EnginePlayer, EngineSession
from envs.types import Episode, Limits, Seat, SeatTrace, Segment


@dataclass(frozen=True)
class ReplayPlayer:
    """Plays the seats of `episode`; `turns` bounds how many of a seat's turns are replayed (None: all)."""

    episode: Episode
    turns: int | None = None
    then: Player | None = None

    @property
    def token_exact(self) -> bool:
        return isinstance(self.then, EnginePlayer)

    def join(self, seat: Seat, *, learnable: bool, limits: Limits, episode_id: str) -> ReplaySession:
        lines = tuple(say.text for say in self.episode.says if say.seat == seat)
        after = self.then.join(seat, learnable=learnable, limits=limits, episode_id=episode_id) if self.then else None
        return ReplaySession(lines[: self.turns], self.episode.traces[seat], after)


class ReplaySession:
    """One seat in one episode."""

    def __init__(self, lines: tuple[str, ...], recorded: SeatTrace, then: Session | None) -> None:
        self._lines, self._recorded, self._then = lines, recorded, then
        self._spoken = 0
        self._last_turn = -1

    async def act(self, ask: Ask) -> Said:
        if self._spoken < len(self._lines):
            self._spoken += 1
            self._last_turn = ask.turn
            return Said(self._lines[self._spoken - 1])
        if self._then is None:
            raise PlayerFailed(f"the recorded episode has only {len(self._lines)} turns of this seat")
        if isinstance(self._then, EngineSession) and not len(self._then.context):
            self._then.context.restore(self._past())
        return await self._then.act(ask)

    def trace(self) -> SeatTrace:
        """The replayed part of the recorded trace, then what the next player added."""
        if self._then is not None and (rest := self._then.trace()).segments:
            return rest
        return SeatTrace(self._recorded.seat, self._recorded.learnable, self._past(), self._recorded.plain_prompt)

    def _past(self) -> tuple[Segment, ...]:
        return tuple(s for s in self._recorded.segments if s.turn <= self._last_turn)
