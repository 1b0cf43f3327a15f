"""A person in the terminal takes a seat: sees exactly that seat's private view, types what it says.

An empty line asks again; `/quit` leaves (the episode is then Unscored). Input is read in a thread: other seats go on.
Who takes several seats sees all their views: for a true game, leave the others to a model.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from common.text import printable
from envs.players.base import Ask, PlayerFailed, Said
from envs.types import Limits, Seat, SeatTrace

QUIT = "/quit"


@dataclass(frozen=True)
class HumanPlayer:
    """`show` prints a line; `read` asks for one with a prompt."""

    show: Callable[[str], None] = print
    read: Callable[[str], str] = input
    token_exact: bool = False

    def join(self, seat: Seat, *, learnable: bool, limits: Limits, episode_id: str) -> HumanSession:
        return HumanSession(self, seat)


class HumanSession:
    """One seat in one episode."""

    def __init__(self, player: HumanPlayer, seat: Seat) -> None:
        self._player, self._seat = player, seat

    async def act(self, ask: Ask) -> Said:
        for message in ask.new:
            self._player.show(printable(f"[{message.role}] {message.content}"))
        while True:
            try:
                text = (await asyncio.to_thread(self._player.read, f"{self._seat}> ")).strip()
            except EOFError:
                text = QUIT
            if text == QUIT:
                raise PlayerFailed(f"the person in seat {self._seat!r} left")
            if text:
                return Said(text)

    def trace(self) -> SeatTrace:
        return SeatTrace(self._seat, learnable=False)
