"""FANToM: rows in OdysSim's format and in AutoToM's (beliefs only), and the environment."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from common.errors import DataError
from envs.env import Feedback
from envs.registry import FeedbackPolicy, Metric, Profile, Source, TaskSpec, no_rows
from envs.tasks.fantom.author import LETTERS
from envs.tasks.fantom.scorers import Kind, Question, mark, polarity
from envs.tasks.fantom.sets import set_numbers
from envs.tasks.files import field, read_records, texts
from envs.tasks.reading import cluster_of
from envs.tasks.schema import RowData, checked, data_of, row_of, text_of
from envs.tasks.single import ONE_REPLY, SEAT, Asked, SingleTurn, chat
from envs.types import Message, Outcome, Row, Score, Seat

NAME = "fantom"
FORMS: Mapping[Kind, str] = {
    "choice": "Give the letter of one option as <answer>…</answer>.",
    "list": "Give the names, separated by commas, as <answer>Name, Name</answer>.",
    "binary": "Answer <answer>yes</answer> or <answer>no</answer>.",
    "fact": "Give a short answer as <answer>…</answer>.",
}

_TALK = {
    "context": "Mia: I sold the boat.\nOto: Really? When?\n(Oto leaves.)\nLea: Who bought it?\nMia: My aunt did.",
    "set_id": "invented",
}
EXAMPLES: tuple[Mapping[str, Any], ...] = (
    _TALK
    | {"question_type": "tom:belief:multiple-choice", "correct_answer": 1}
    | {"complete_question": "Who bought the boat, as Oto sees it? (a) Mia's aunt (b) Oto does not know"},
    _TALK
    | {"question_type": "tom:answerability:list", "correct_answer": "['Mia', 'Lea']", "wrong_answer": ["Oto"]}
    | {"complete_question": "Who knows the buyer of the boat?"},
    _TALK
    | {"question_type": "tom:answerability:binary", "correct_answer": "no"}
    | {"complete_question": "Does Oto know the buyer of the boat?"},
    _TALK | {"question_type": "fact", "correct_answer": "Mia's aunt"} | {"complete_question": "Who bought the boat?"},
)
"""Invented, in OdysSim's form."""


class Item(RowData):
    """The validated data of one row: a conversation and one question about it."""

    context: str
    question: Annotated[str, Field(min_length=1)]
    kind: Kind
    options: tuple[str, ...]
    """What a choice is made from; empty otherwise."""
    correct: Annotated[tuple[str, ...], Field(min_length=1)]
    wrong: tuple[str, ...]
    """Names that a list must not hold."""
    part: str
    set_id: str
    """Questions about the same piece of information; the authors name it conversation-part-set."""
    accessibility: Literal["accessible", "inaccessible", ""]
    """Whether somebody missed that information, where the record says so."""

    @model_validator(mode="after")
    def _check(self) -> Item:
        if self.kind == "choice" and self.correct[0] not in self.options:
            raise ValueError("the right answer is none of the options")
        if self.kind == "binary" and polarity(self.correct[0]) is None:
            raise ValueError(f"the right answer is neither yes nor no: {self.correct[0]!r}")
        return self


def spec() -> TaskSpec:
    """The registry's entry."""
    return TaskSpec(
        name=NAME,
        axis="COG",
        version=2,
        metric=Metric("mean over questions"),
        cluster="conversation",
        licence="MIT (authors' files); Apache-2.0 (AutoToM's belief questions)",
        env=FantomEnv,
        rows=no_rows(NAME),
        read=read_rows,
        seats=(SEAT,),
        profiles=("strict", "soul", "author"),
        feedback=FeedbackPolicy("rule", sees_gold=True),
        limits=ONE_REPLY,
        splits=("test",),
        source=Source("https://github.com/skywalker023/fantom", "ebd35eb", note="data from the authors' bucket"),
        aggregate=set_numbers,
        part=lambda row: str(row.data["part"]),
        samples=_samples,
        examples=lambda: list(_rows(EXAMPLES, "examples")),
    )


def read_rows(path: Path) -> Iterator[Row]:
    """One row per question."""
    return _rows(read_records(path), str(path))


def _rows(records: Iterable[Mapping[str, Any]], origin: str) -> Iterator[Row]:
    for number, record in enumerate(records):
        where = f"{origin}, record {number + 1}"
        context = str(field(record, "context", where=where))
        data = _autotom(record, where) if "answer_choices" in record else _odyssim(record, where)
        set_id = text_of(record, "set_id", "part_id", default=cluster_of(context))
        about = {"set_id": set_id, "accessibility": text_of(record, "missed_info_accessibility")}
        conversation = set_id.partition("-")[0]
        yield row_of(NAME, str(number), conversation, checked(Item, {"context": context, **about, **data}, where))


def _autotom(record: Mapping[str, Any], where: str) -> dict[str, Any]:
    options, gold = texts(record["answer_choices"]), str(field(record, "gt_answer", where=where))
    if gold not in options:
        raise DataError("the answer is none of the options", where=where, fix="repair the row")
    part = str(record.get("_cell", "belief"))
    question = str(field(record, "question", where=where))
    return {"question": question, "kind": "choice", "options": options, "correct": [gold], "wrong": [], "part": part}


def _odyssim(record: Mapping[str, Any], where: str) -> dict[str, Any]:
    named = str(field(record, "question_type", where=where))
    kind = next((k for mark_, k in KINDS.items() if mark_ in named), None)
    if kind is None:
        raise DataError(f"unknown question type {named!r}", where=where, fix=f"one of {', '.join(KINDS)}")
    correct = field(record, "correct_answer", where=where)
    data: dict[str, Any] = {
        "question": str(field(record, "complete_question", "question", where=where)),
        "kind": kind,
        "options": [],
        "correct": texts(correct),
        "wrong": texts(record["wrong_answer"]) if record.get("wrong_answer") else [],
        "part": named,
    }
    if kind == "choice":
        # The question's text lists (a), (b), …; the answer is the index.
        count = sum(f"({letter})" in data["question"] for letter in LETTERS)
        data["options"] = [f"({letter})" for letter in LETTERS[: max(2, count)]]
        data["correct"] = [_option(data["options"], correct, where)]
        data["wrong"] = []
    return data


def _option(options: Sequence[str], index: Any, where: str) -> str:
    try:
        place = int(index)
    except (TypeError, ValueError):
        place = -1
    if not 0 <= place < len(options):
        fix = f"give its index, 0 to {len(options) - 1}"
        raise DataError(f"the right option is none of the question's: {index!r}", where=where, fix=fix)
    return options[place]


KINDS: Mapping[str, Kind] = {
    "multiple": "choice",
    "choice": "choice",
    "list": "list",
    "binary": "binary",
    "fact": "fact",
}


@dataclass(frozen=True)
class Asking:
    """The row's question and how it is put."""

    prompt: str
    question: Question


@dataclass(frozen=True)
class FantomEnv(SingleTurn[Asking]):
    """One seat reads a conversation and answers one question."""

    profile: Profile = "strict"

    def start(self, row: Row, rng: Random) -> Asked[Asking]:
        question = read_question(row)
        listed = [f"({LETTERS[i]}) {text}" for i, text in enumerate(question.options) if text != f"({LETTERS[i]})"]
        parts = [row.data["context"], row.data["question"], "\n".join(listed), FORMS[question.kind]]
        return Asked(Asking("\n\n".join(str(part) for part in parts if part), question))

    def messages(self, question: Asking) -> Sequence[Message]:
        return chat("", question.prompt)

    def score(self, state: Asked[Asking]) -> Mapping[Seat, Outcome]:
        value = mark(state.question.question, state.reply or "", self.profile).value
        return {SEAT: Score(0.0, format_error=True) if value is None else Score(value)}

    def feedback(self, state: Asked[Asking], seat: Seat) -> Feedback | None:
        question = state.question.question
        value = mark(question, state.reply or "", self.profile).value
        if value is None:
            return Feedback(f"Your last reply had no single readable answer. {FORMS[question.kind]}", False)
        if value == 1.0:
            return None
        return Feedback("Your last answer was not right. Go through who was present when each thing was said.", True)

    def privileged(self, row: Row, seat: Seat) -> str | None:
        return None


def read_question(row: Row) -> Question:
    """The question of a row. Raises DataError."""
    d = data_of(Item, row)
    index = d.options.index(d.correct[0]) if d.kind == "choice" else 0
    return Question(d.kind, d.correct, d.wrong, d.options, index)


def _samples(row: Row, seat: Seat) -> Sequence[str]:
    q = read_question(row)
    right = f"({LETTERS[q.index]})" if q.kind == "choice" else ", ".join(q.correct)
    everything = ", ".join((*q.correct, *q.wrong, "yes", "no"))
    return [f"<answer>{right}</answer>", f"<answer>{everything}</answer>", f"{right}", "<answer>(a) or (b)</answer>"]
