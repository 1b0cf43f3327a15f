"""The Player protocol: a player joins an episode once per seat and speaks when asked.

`play` owns the order of turns, the views and the limits; a session owns what its own kind of player needs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from envs.types import FailureReason, JudgeCall, Limits, Message, Seat, SeatTrace


class PlayerFailed(Exception):
    """The player could not answer: the episode is Unscored with `reason`, never scored."""

    def __init__(
        self,
        detail: str,
        reason: FailureReason = FailureReason.PARTNER_FAILED,
        calls: tuple[JudgeCall, ...] = (),
    ) -> None:
        super().__init__(detail)
        self.reason, self.calls = reason, calls


class ContextFull(Exception):
    """The seat's next prompt leaves no room to answer: the episode ends at the token limit and is scored as it is."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One request to speak.

    view: the seat's whole private view, feedback included. new: its messages since the seat last spoke (all of
    them at the first ask; the seat's own messages are left out). plain: at the first ask of an episode with
    feedback, the view without it.
    """

    view: tuple[Message, ...]
    new: tuple[Message, ...]
    turn: int
    seed: int
    plain: tuple[Message, ...] | None = None


@dataclass(frozen=True, slots=True)
class Said:
    """What a seat said. `calls` are API calls to be recorded."""

    text: str
    calls: tuple[JudgeCall, ...] = ()


class Session(Protocol):
    """One seat in one episode."""

    async def act(self, ask: Ask) -> Said:
        """Speak. Raises EngineError, PlayerFailed or ContextFull."""
        ...

    def trace(self) -> SeatTrace:
        """The seat's tokens so far; no segments for players that only know text."""
        ...


class Player(Protocol):
    """Makes sessions. Safe for concurrent use."""

    @property
    def token_exact(self) -> bool:
        """Its traces hold the sampled ids and log-probs: only such a player can be learnable."""
        ...

    def join(self, seat: Seat, *, learnable: bool, limits: Limits, episode_id: str) -> Session: ...
