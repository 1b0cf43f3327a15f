"""A task that even a random model gets different scores in: use many vowels, in two turns. For tests of the loop."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random

from envs.env import Done, Feedback
from envs.registry import Metric, TaskSpec
from envs.types import Limits, Message, Outcome, Row, Score, Seat

SEAT = "writer"
TURNS = 2


@dataclass(frozen=True)
class LettersState:
    word: str
    said: tuple[str, ...] = ()


@dataclass(frozen=True)
class LettersEnv:
    seats: tuple[Seat, ...] = (SEAT,)

    def start(self, row: Row, rng: Random) -> LettersState:
        return LettersState(row.data["word"])

    def turn(self, state: LettersState) -> Sequence[Seat] | Done:
        return Done() if len(state.said) == TURNS else self.seats

    def view(self, state: LettersState, seat: Seat) -> Sequence[Message]:
        view = [Message("user", f"Write about {state.word}.")]
        for i, text in enumerate(state.said):
            view.append(Message("assistant", text))
            if i + 1 < TURNS:
                view.append(Message("user", "Go on."))
        return view

    def hear(self, state: LettersState, seat: Seat, text: str) -> LettersState:
        return replace(state, said=(*state.said, text))

    def score(self, state: LettersState) -> Mapping[Seat, Outcome]:
        text = "".join(state.said)
        # Some noise by content, so that groups of equal vowel counts differ too.
        noise = hashlib.blake2b(text.encode(), digest_size=1).digest()[0] / 2550
        share = sum(c in "aeiou" for c in text) / max(1, len(text))
        return {SEAT: Score(min(1.0, 0.9 * share + noise))}

    def feedback(self, state: LettersState, seat: Seat) -> Feedback | None:
        return Feedback("Use more vowels.", sees_gold=False)

    def privileged(self, row: Row, seat: Seat) -> str | None:
        return "The vowels are a, e, i, o and u."


def rows(split: str, limit: int | None, seed: int) -> list[Row]:
    words = [a + b for a in ("red", "blue", "old", "new") for b in ("ball", "box", "room", "cat", "dog")]
    return [Row("letters", f"{split}-{w}", w, {"word": w}) for w in words][:limit]


def spec() -> TaskSpec:
    return TaskSpec(
        name="letters",
        axis="CONV",
        version=1,
        metric=Metric("vowels"),
        cluster="word",
        licence="as osim",
        env=lambda profile: LettersEnv(),
        rows=rows,
        seats=(SEAT,),
        limits=Limits(max_turns=TURNS, max_tokens=12),
    )
