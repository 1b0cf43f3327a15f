"""A seat played by a chat API: text only, so it can be a partner or an evaluated policy, never learn.

The seat's view is sent as it is (the seat speaks as assistant), neighbouring messages of one role as one. A call that
fails, is refused or, for a partner, comes back empty is a failure of the player: an error text is never used as
dialogue.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from envs.client.client import Answered, Client, Question
from envs.players.base import Ask, PlayerFailed, Said
from envs.players.engine import without_reasoning
from envs.types import FailureReason, Limits, Message, Seat, SeatTrace


@dataclass(frozen=True)
class ChatPlayer:
    """role "partner": its failure is partner_failed; role "policy": the evaluated model, engine_failed."""

    client: Client
    role: Literal["partner", "policy"] = "partner"
    temperature: float | None = None
    max_tokens: int | None = None
    """Per turn, further bounded by the episode's limits; None: the limits alone."""
    token_exact: bool = False

    def join(self, seat: Seat, *, learnable: bool, limits: Limits, episode_id: str) -> ChatSession:
        return ChatSession(self, seat, limits)


class ChatSession:
    """One seat in one episode."""

    def __init__(self, player: ChatPlayer, seat: Seat, limits: Limits) -> None:
        self._player, self._seat, self._limits = player, seat, limits

    async def act(self, ask: Ask) -> Said:
        player = self._player
        most = min(player.max_tokens or self._limits.max_tokens, self._limits.max_tokens)
        question = Question(player.role, joined(ask.view), most, ask.seed, player.temperature)
        answer = await player.client.ask(question)
        reason = FailureReason.PARTNER_FAILED if player.role == "partner" else FailureReason.ENGINE_FAILED
        if not isinstance(answer, Answered):
            raise PlayerFailed(f"{answer.kind}: {answer.detail}", reason, answer.calls)
        text = without_reasoning(answer.value).strip()
        if not text and player.role == "partner":
            raise PlayerFailed("the partner said nothing", reason, answer.calls)
        return Said(text, answer.calls)

    def trace(self) -> SeatTrace:
        return SeatTrace(self._seat, learnable=False)


def joined(view: Sequence[Message]) -> tuple[Message, ...]:
    """`view` with neighbours of one role as one message: many chat templates refuse roles that do not alternate."""
    return tuple(
        Message(role, "\n\n".join(message.content for message in run))
        for role, run in groupby(view, key=lambda message: message.role)
    )
