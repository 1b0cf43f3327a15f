"""A complete task in one file: a shy guest answers a small-talk question. Copy it, change it, check it:

    osim task check ./my_task.py
    osim play ./my_task.py

The rules of the file: data in, data out. No network, no clock, no global random numbers, no state that changes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random

from common.seeds import derive_rng
from envs.env import Done, Feedback, FormatError
from envs.registry import FeedbackPolicy, Metric, Profile, TaskSpec
from envs.types import Limits, Message, Outcome, Row, Score, Seat

NAME = "shy_guest"
SEAT = "guest"
TOPICS = ("the weather", "the food", "the music", "the trains", "the garden", "the film", "the sea", "the news")
FIRST_PERSON = re.compile(r"\b(?:I|me|my|mine)\b")
MOST_WORDS = 12


@dataclass(frozen=True)
class Party:
    """The state: the topic, and the reply once there is one. Frozen, with equality: `check` compares states."""

    topic: str
    reply: str | None = None


class ShyGuest:
    """The rules. One seat speaks once."""

    seats: tuple[Seat, ...] = (SEAT,)

    def start(self, row: Row, rng: Random) -> Party:
        return Party(str(row.data["topic"]))

    def turn(self, state: Party) -> Sequence[Seat] | Done:
        return self.seats if state.reply is None else Done()

    def view(self, state: Party, seat: Seat) -> Sequence[Message]:
        """What this seat sees. It only ever grows: first by what the seat said, then by what it hears."""
        opening = [
            Message("system", "You are a shy guest at a party. You say little, and something about yourself."),
            Message("user", f"Hello! What do you make of {state.topic}?"),
        ]
        return opening if state.reply is None else [*opening, Message("assistant", state.reply)]

    def hear(self, state: Party, seat: Seat, text: str) -> Party | FormatError:
        """A text that cannot be acted on is a FormatError: the speaker's own fault, score 0."""
        return FormatError("a guest who says nothing") if not text.strip() else replace(state, reply=text)

    def score(self, state: Party) -> Mapping[Seat, Outcome]:
        """In [0, 1]. For a question to a judge return a JudgeAsk; never a default for a judge that failed."""
        words = (state.reply or "").split()
        shy, personal = len(words) <= MOST_WORDS, bool(FIRST_PERSON.search(state.reply or ""))
        parts = {"shy": float(shy), "personal": float(personal)}
        return {SEAT: Score((shy + personal) / 2, parts)}

    def feedback(self, state: Party, seat: Seat) -> Feedback | None:
        """Words for a second try, or None. Say truly whether the writer saw a reference answer."""
        if len((state.reply or "").split()) > MOST_WORDS:
            return Feedback("You talked too much for a shy guest.", sees_gold=False)
        return None

    def privileged(self, row: Row, seat: Seat) -> str | None:
        """What a teacher may know beyond the prompt, or None."""
        return None


def rows(split: str, limit: int | None, seed: int) -> list[Row]:
    """Equal arguments give equal rows; splits share no cluster."""
    topics = TOPICS[2:] if split == "train" else TOPICS[:2]
    order = derive_rng(seed, NAME, split).sample(topics, len(topics))
    return [Row(NAME, topic, cluster=topic, data={"topic": topic}) for topic in order[:limit]]


def environment(profile: Profile) -> ShyGuest:
    return ShyGuest()


def spec() -> TaskSpec:
    """What osim asks for."""
    return TaskSpec(
        name=NAME,
        axis="CONV",
        version=1,  # raise it whenever a score can change
        metric=Metric("shyness", higher_is_better=True),
        cluster="topic",
        licence="the licence of the rows",
        env=environment,
        rows=rows,
        seats=(SEAT,),
        feedback=FeedbackPolicy("rule", sees_gold=False),
        limits=Limits(max_turns=1, max_tokens=64),
        samples=lambda row, seat: ["I like it.", "Well, nobody asked me, but I could talk about it all night, " * 2],
    )
