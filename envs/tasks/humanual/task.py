"""HUMANUAL: the pure environment, and six registrations of it.

A reply is compared with what the person wrote by a judge; a judge that fails leaves the episode unscored, under every
profile. The teacher of verbal feedback and the student are scored by the same judge.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any

from envs.env import Feedback, FeedbackAsk, JudgeAsk
from envs.registry import Axis, FeedbackPolicy, Metric, Profile, Source, TaskSpec, no_rows
from envs.tasks.humanual.judges import AUTHOR, CRITIC, JUDGES, SOUL, STRICT
from envs.tasks.humanual.rows import Thread, reader
from envs.tasks.humanual.scorers import (
    aspect_score,
    fault_of,
    key_point_score,
    read_reply,
    soul_score,
)
from envs.tasks.quoting import without_quotes
from envs.tasks.reading import swapping
from envs.tasks.schema import data_of
from envs.tasks.single import ONE_REPLY, SEAT, Asked, SingleTurn, chat
from envs.types import Message, Outcome, Row, Score, Seat

GROUNDING = """\
You are the person described here. You write as this person does when nobody grades it: with this person's opinions,
moods, interests and habits of writing, at the length this person would use.

{persona}"""


PLAIN_ADVICE = "Write more as this person would: this person's stance, feelings, tone and length."
"""For a critic whose every word was a quotation."""


@dataclass(frozen=True)
class Part:
    """One of the six sources: its SOUL axis, what the person writes, and where it comes from."""

    axis: Axis
    writes: str
    origin: str


PARTS: Mapping[str, Part] = {
    "book": Part("EVAL", "Write your review of it.", "Amazon Reviews 2023"),
    "chat": Part("CONV", "Write your next message to the assistant.", "WildChat, ODC-BY"),
    "email": Part("ROLE", "Write your e-mail in reply.", "Enron e-mail corpus"),
    "news": Part("ROLE", "Write your comment.", "YouTube comments"),
    "opinion": Part("EVAL", "Write your comment.", "Reddit"),
    "politics": Part("ROLE", "Write your comment on it.", "Medium"),
}


def book_spec() -> TaskSpec:
    """Book reviews."""
    return _spec("book")


def chat_spec() -> TaskSpec:
    """Messages to an assistant."""
    return _spec("chat")


def email_spec() -> TaskSpec:
    """E-mails at work."""
    return _spec("email")


def news_spec() -> TaskSpec:
    """Comments under news videos."""
    return _spec("news")


def opinion_spec() -> TaskSpec:
    """Comments on other people's questions."""
    return _spec("opinion")


def politics_spec() -> TaskSpec:
    """Comments on political essays."""
    return _spec("politics")


def _spec(part: str) -> TaskSpec:
    name, chosen, read = f"humanual_{part}", PARTS[part], reader(part)
    return TaskSpec(
        name=name,
        axis=chosen.axis,
        version=1,
        metric=Metric("match with the person's own reply"),
        cluster="person",
        licence=f"per source ({chosen.origin}); the authors' code is Apache-2.0",
        env=partial(ReplyEnv, chosen.writes),
        rows=no_rows(name),
        read=read,
        examples=read.examples(EXAMPLES),
        seats=(SEAT,),
        profiles=("strict", "soul", "author"),
        feedback=FeedbackPolicy("critic", sees_gold=True),
        limits=ONE_REPLY,
        splits=("test",),
        judges=JUDGES,
        source=Source(
            "https://github.com/zou-group/humanlm",
            "23c4986",
            note=f"code that collects it; humanual_{part}_val.parquet of sunweiwei/sim-eval-data; snap-stanford",
        ),
        samples=_samples,
        imposter=swapping("persona"),
        human=lambda row: [str(row.data["completion"])],
    )


@dataclass(frozen=True)
class ReplyEnv(SingleTurn[Thread]):
    """One seat writes one reply."""

    writes: str
    profile: Profile = "strict"

    def start(self, row: Row, rng: Random) -> Asked[Thread]:
        return Asked(data_of(Thread, row))

    def messages(self, question: Thread) -> Sequence[Message]:
        return chat(GROUNDING.format(persona=question.persona).strip(), f"{question.context}\n\n{self.writes}")

    def score(self, state: Asked[Thread]) -> Mapping[Seat, Outcome | JudgeAsk]:
        reply, gold = read_reply(state.reply or "", self.profile), state.question.completion
        fields = {"context": state.question.context, "reference": gold, "reply": reply}
        if self.profile == "author":
            return {SEAT: JudgeAsk(AUTHOR.id, fields, key_point_score)}
        if self.profile == "soul":
            return {SEAT: JudgeAsk(SOUL.id, fields, lambda verdict: soul_score(verdict, reply, gold))}
        if fault := fault_of(reply, state.question):
            return {SEAT: Score(0.0, format_error=fault.format_error, explanation=fault.detail)}
        return {SEAT: JudgeAsk(STRICT.id, fields, lambda verdict: aspect_score(verdict, reply, gold))}

    def feedback(self, state: Asked[Thread], seat: Seat) -> Feedback | FeedbackAsk:
        """By rule for a reply that is not judged; else a critic who knows the person's reply and may not quote it."""
        reply, gold = read_reply(state.reply or "", self.profile), state.question.completion
        if fault := fault_of(reply, state.question):
            return Feedback(f"Your last reply cannot count: {fault.detail}. {self.writes}", sees_gold=False)
        fields = {"context": state.question.context, "reference": gold, "reply": reply}
        return FeedbackAsk(
            CRITIC.id, fields, sees_gold=True, text=lambda v: without_quotes(v.feedback, [gold]) or PLAIN_ADVICE
        )

    def privileged(self, row: Row, seat: Seat) -> str | None:
        return f"What you wrote then:\n{data_of(Thread, row).completion}"


EXAMPLES: Sequence[Mapping[str, Any]] = (
    {
        "data_source": "humanual",
        "extra_info": {
            "index": 0,
            "id": "example-0",
            "persona": "A retired bus driver from Leeds. Dry humour, short sentences, distrusts experts.",
            "prompt": "The council wants to close the library on Mondays to save money. What do you think?",
            "completion": "Close the council on Mondays instead. Nobody would notice, and the library is full.",
        },
    },
    {
        "data_source": "humanual",
        "extra_info": {
            "index": 1,
            "id": "example-1",
            "persona": "A nurse who writes warmly and always thanks people first.",
            "prompt": (
                '[{"role": "p17", "content": "I finally told my sister about the debt."},'
                ' {"role": "p18", "content": "And? How did she take it?"}]'
            ),
            "completion": (
                "Thank you for telling us. That took courage. My own sister was angry for a week and then came with "
                "a spreadsheet, so give yours a little time."
            ),
        },
    },
)


def _samples(row: Row, seat: Seat) -> Sequence[str]:
    read = row.data["thread"][0]["text"]
    return [
        row.data["completion"],
        f"<response>{row.data['completion']}</response>",
        f"{read} {read}",
        "I agree. " * 300,
        "<response>half open",
        "<think>what would they say</think>",
    ]
