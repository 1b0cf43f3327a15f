"""A seat taken by the person at the terminal (`osim task play`): shows what is new in its view, reads one line."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from envs.players.base import Ask, PlayerFailed, Said
from envs.types import Limits, Seat, SeatTrace


@dataclass(frozen=True)
class TerminalPlayer:
    """Text only: nothing that is typed can be learnt from token by token."""

    token_exact: bool = False

    def join(self, seat: Seat, *, learnable: bool, limits: Limits, episode_id: str) -> TerminalSession:
        return TerminalSession(seat, learnable)


@dataclass(frozen=True)
class TerminalSession:
    """One seat in one episode."""

    seat: Seat
    learnable: bool

    async def act(self, ask: Ask) -> Said:
        """Show what is new and read an answer; the end of input leaves the seat."""
        for message in ask.new:
            print(f"\n[{message.role} → {self.seat}]\n{message.content}")
        try:
            return Said(await asyncio.to_thread(input, f"\n{self.seat}> "))
        except EOFError:
            raise PlayerFailed("the person left") from None

    def trace(self) -> SeatTrace:
        return SeatTrace(self.seat, self.learnable)
