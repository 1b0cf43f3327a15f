"""SocSci210: the pure environment, and what the registry lists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from envs.env import Feedback
from envs.registry import FeedbackPolicy, Metric, Profile, Source, SurveyAnswer, TaskSpec, no_rows
from envs.tasks.schema import data_of
from envs.tasks.single import ONE_REPLY, SEAT, Asked, SingleTurn, chat
from envs.tasks.socsci210.rows import NAME, READ, Response
from envs.tasks.socsci210.scorers import accuracy, read_answer, worth
from envs.types import Episode, Message, Outcome, Row, Score, Seat

GROUNDING = (
    "You are the person described in the next message, taking part in a study. Answer as this person would, not as "
    "the average person and not as an expert."
)
ANSWER = "answer"
"""The part of a score that holds the number given."""


def spec() -> TaskSpec:
    """The registry's entry."""
    return TaskSpec(
        name=NAME,
        axis="EVAL",
        version=2,
        metric=Metric("agreement with the respondent"),
        cluster="study",
        licence="none on the data set's card",
        env=SurveyEnv,
        rows=no_rows(NAME),
        read=READ,
        examples=READ.examples(EXAMPLES),
        seats=(SEAT,),
        profiles=("strict", "soul"),
        feedback=FeedbackPolicy("rule", sees_gold=True),
        limits=ONE_REPLY,
        splits=("test",),
        source=Source(
            "https://huggingface.co/datasets/socratesft/SocSci210",
            note="as rows with a scale: socsci210_val.parquet of sunweiwei/sim-eval-data",
        ),
        part=lambda row: str(row.data["kind"]),
        samples=_samples,
        survey=survey_answer,
    )


@dataclass(frozen=True)
class SurveyEnv(SingleTurn[Response]):
    """One seat answers one question once."""

    profile: Profile = "strict"

    def start(self, row: Row, rng: Random) -> Asked[Response]:
        return Asked(data_of(Response, row))

    def messages(self, question: Response) -> Sequence[Message]:
        return chat(GROUNDING, f"{question.text}\n\n{form(question)}")

    def score(self, state: Asked[Response]) -> Mapping[Seat, Outcome]:
        question = state.question
        answer = read_answer(question, state.reply or "", self.profile)
        if answer is None:
            return {SEAT: Score(0.0, format_error=True, explanation="no readable answer")}
        parts = {ANSWER: answer}
        if question.kind == "ordinal" and question.high > question.low:
            parts["1 - distance / range"] = accuracy(question, answer)
        said = f"answered {answer:g}, the person {question.response:g}"
        return {SEAT: Score(worth(question, answer, self.profile), parts, explanation=said)}

    def feedback(self, state: Asked[Response], seat: Seat) -> Feedback | None:
        """By rule: what is wrong with the form, or on which side of the answer the person's was."""
        question = state.question
        answer = read_answer(question, state.reply or "", self.profile)
        if answer is None:
            return Feedback(f"Your last reply had no single readable answer. {form(question)}", sees_gold=False)
        if answer == question.response:
            return None
        said = f"You answered {answer:g}."
        if question.kind != "ordinal":
            return Feedback(f"{said} This person answered otherwise: go by who they are.", sees_gold=True)
        side = "higher" if question.response > answer else "lower"
        return Feedback(f"{said} This person's answer was {side}: go by who they are.", sees_gold=True)

    def privileged(self, row: Row, seat: Seat) -> str | None:
        return f"This person answered {data_of(Response, row).response:g}."


def survey_answer(episode: Episode) -> SurveyAnswer | None:
    """The answer beside the respondent's, whose distributions per question are compared: no single answer can show
    that a model gives every respondent the same one. None where the episode has no score."""
    outcome, d = episode.outcomes.get(SEAT), data_of(Response, episode.row)
    if not isinstance(outcome, Score):
        return None
    given = outcome.parts.get(ANSWER)
    if d.kind == "ordinal":
        return SurveyAnswer(d.group, given, d.response)
    return SurveyAnswer(d.group, None if given is None else f"{given:g}", f"{d.response:g}")


def form(question: Response) -> str:
    """The answer format of a question."""
    how = "Think in a sentence or two about what this person would say, then give "
    if question.kind == "binary" and (question.low, question.high) == (0, 1):
        return f"{how}<answer>yes</answer> or <answer>no</answer>."
    return f"{how}one whole number from {question.low:g} to {question.high:g} as <answer>…</answer>."


def _record(index: int, response: float, kind: str, question: str, **more: Any) -> dict[str, Any]:
    who = "You are a 61-year-old woman from Ohio who votes Republican and goes to church weekly."
    extra = {
        "index": index,
        "study_id": "example study",
        "condition_id": 1,
        "outcome_id": index,
        "prompt_text": f"{who}\n{question}",
        "response": response,
        "response_type": kind,
        **more,
    }
    return {"data_source": "socsci210", "extra_info": extra}


EXAMPLES: Sequence[Mapping[str, Any]] = (
    _record(
        0,
        6,
        "ordinal",
        "How warm do you feel towards your neighbours, from 1 to 7? Only return the number, nothing else.",
        r_min=1,
        r_max=7,
    ),
    _record(1, 1, "binary", "Did you vote in the last election? Only return Yes or No.", r_min=0, r_max=1),
    _record(2, 3, "categorical", "Which of the news sources 1 to 4 do you read most?", r_min=1, r_max=4),
)


def _samples(row: Row, seat: Seat) -> Sequence[str]:
    low, high, gold = (row.data[name] for name in ("low", "high", "response"))
    return [
        f"<answer>{gold:g}</answer>",
        f"<answer>{(low + high) / 2:g}</answer>",
        f"<answer>{low:g}</answer>",
        f"<answer>{high + 90:g}</answer>",
        f"somewhere from {low:g} to {high:g}",
        "<answer>yes</answer>",
    ]
