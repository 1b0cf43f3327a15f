"""The shape of most tasks: one seat reads one prompt and replies once. Pure.

A task subclasses `SingleTurn`: it reads the row's question in `start`, writes the messages, scores the reply.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from envs.env import Done
from envs.types import Limits, Message, Seat

Q = TypeVar("Q")
SEAT = "reader"
ONE_REPLY = Limits(max_turns=1, max_tokens=1024)
TAG = re.compile(r"<answer>(.*?)</answer>", re.DOTALL | re.IGNORECASE)
THOUGHTS = tuple(re.compile(rf"<{tag}>.*?</{tag}>", re.DOTALL) for tag in ("seed:think", "think"))


@dataclass(frozen=True)
class Asked(Generic[Q]):
    """The question, and the reply once there is one."""

    question: Q
    reply: str | None = None


class SingleTurn(Generic[Q]):
    """Turns, views and hearing of a task with one seat and one reply."""

    seats: tuple[Seat, ...] = (SEAT,)

    def messages(self, question: Q) -> Sequence[Message]:
        """What the seat reads, ending with a user message."""
        raise NotImplementedError

    def turn(self, state: Asked[Q]) -> Sequence[Seat] | Done:
        return Done() if state.reply is not None else self.seats

    def view(self, state: Asked[Q], seat: Seat) -> Sequence[Message]:
        opening = self.messages(state.question)
        return opening if state.reply is None else [*opening, Message("assistant", state.reply)]

    def hear(self, state: Asked[Q], seat: Seat, text: str) -> Asked[Q]:
        return replace(state, reply=text)


def chat(system: str, user: str) -> list[Message]:
    """A system message, where there is one, and a user message."""
    return [*([Message("system", system)] if system else []), Message("user", user)]


def only_answer(reply: str) -> str | None:
    """What stands in the one answer block after any thought; None for no block or several."""
    answers = TAG.findall(reply.rpartition("</think>")[2])
    return answers[0].strip() if len(answers) == 1 else None


def without_thought(reply: str) -> str:
    """`reply` without closed thought blocks, as OdysSim removes them."""
    for thought in THOUGHTS:
        reply = thought.sub("", reply)
    return reply.strip()
