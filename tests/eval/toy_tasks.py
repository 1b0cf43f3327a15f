"""Tasks whose score follows from the words alone, by rule and by judge; one with a persona and a partner.

They are third-party tasks: named `tests.eval.toy_tasks:vowels` and so on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from pydantic import BaseModel

from envs.client.transcript import render_says
from envs.env import Done, JudgeAsk
from envs.judges.spec import JudgeSpec
from envs.registry import Metric, Profile, SurveyAnswer, TaskSpec
from envs.types import Episode, Limits, Message, Outcome, Row, Say, Score, Seat

VOWELS = "tests.eval.toy_tasks:vowels"
JUDGED = "tests.eval.toy_tasks:judged"
TALK = "tests.eval.toy_tasks:talk"
WRITER, OTHER = "writer", "other"


class Mark(BaseModel):
    """A judge's reply."""

    score: float


SPEC = JudgeSpec(
    id="toy",
    version=1,
    instructions="How natural is the talk? Reply with a score from 0 to 1.",
    template="{transcript}",
    schema=Mark,
    max_tokens=64,
)


@dataclass(frozen=True)
class Talk:
    row: Row
    says: tuple[Say, ...] = ()


@dataclass(frozen=True)
class ToyEnv:
    """`turns` turns of the writer, each but the last answered by the other seat where there is one."""

    kind: str
    turns: int = 1
    profile: Profile = "strict"

    @property
    def seats(self) -> tuple[Seat, ...]:
        return (WRITER, OTHER) if self.kind == "talk" else (WRITER,)

    def start(self, row: Row, rng: Random) -> Talk:
        return Talk(row)

    def turn(self, state: Talk) -> Sequence[Seat] | Done:
        spoken = len(state.says)
        if spoken == (2 * self.turns - 1 if self.kind == "talk" else self.turns):
            return Done()
        return (self.seats[spoken % len(self.seats)],)

    def view(self, state: Talk, seat: Seat) -> Sequence[Message]:
        opening = f"You are {state.row.data['persona']}. {state.row.data['question']}"
        messages = [Message("user", opening if seat == WRITER else "Talk with the other.")]
        for say in state.says:
            if say.seat == seat:
                messages.append(Message("assistant", say.text))
            elif messages[-1].role == "user":
                messages[-1] = Message("user", f"{messages[-1].content}\n{say.text}")
            else:
                messages.append(Message("user", say.text))
        return messages

    def hear(self, state: Talk, seat: Seat, text: str) -> Talk:
        return replace(state, says=(*state.says, Say(seat, text)))

    def score(self, state: Talk) -> Mapping[Seat, Outcome | JudgeAsk]:
        text = "".join(s.text for s in state.says if s.seat == WRITER)
        vowels = sum(c in "aeiouAEIOU" for c in text) / max(1, len(text))
        scores: dict[Seat, Outcome | JudgeAsk] = {seat: Score(0.0) for seat in self.seats}
        if self.kind == "vowels":
            scores[WRITER] = Score(vowels if self.profile == "strict" else 1 - vowels)
        else:
            factor = 0.5 if self.profile == "soul" else 1.0
            fields = {"transcript": render_says(state.says)}
            scores[WRITER] = JudgeAsk("toy", fields, lambda mark: Score(min(1.0, max(0.0, factor * mark.score))))
        return scores

    def feedback(self, state: Talk, seat: Seat) -> None:
        return None

    def privileged(self, row: Row, seat: Seat) -> str | None:
        return None


def vowels() -> TaskSpec:
    """The share of vowels in one answer."""
    return _spec("vowels")


def judged() -> TaskSpec:
    """A judge's score of one answer."""
    return _spec("judged")


def talk() -> TaskSpec:
    """A judge's score of two turns with a partner between them."""
    return _spec("talk", turns=2)


def _spec(kind: str, turns: int = 1) -> TaskSpec:
    return TaskSpec(
        name=f"tests.eval.toy_tasks:{kind}",
        axis="COG",
        version=1,
        metric=Metric("naturalness"),
        cluster="person",
        licence="as osim",
        env=lambda profile: ToyEnv(kind, turns, profile),
        rows=_rows(kind),
        seats=(WRITER,),
        profiles=("strict", "soul"),
        limits=Limits(max_turns=8, max_tokens=48),
        splits=("test",),
        judges=() if kind == "vowels" else (SPEC,),
        imposter=lambda row, other: replace(row, data={**row.data, "persona": other.data["persona"]}),
        human=lambda row: (f"well i am {row.data['persona']}, what else",),
        survey=_answer,
    )


def _rows(kind: str) -> Any:
    name = f"tests.eval.toy_tasks:{kind}"

    def rows(split: str, limit: int | None, seed: int) -> list[Row]:
        return [
            Row(name, f"{k}", f"person-{k // 2}", {"persona": f"number {k // 2}", "question": f"What is {k} to you?"})
            for k in range(12 if limit is None else min(limit, 12))
        ]

    return rows


def _answer(episode: Episode) -> SurveyAnswer | None:
    return SurveyAnswer("length", float(min(7, len(episode.says[0].text) % 8)), float(int(episode.row.id) % 8))
