"""MMToM-QA, text only: which of two statements about a person's belief or goal is more likely."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from common.errors import DataError
from envs.registry import FeedbackPolicy, Metric, Source, TaskSpec, no_rows
from envs.tasks.choice import SEAT, ChoiceData, ChoiceEnv, Item, answer_text, samples_of
from envs.tasks.files import field
from envs.tasks.reading import Made, Reader, cluster_of
from envs.tasks.schema import checked, data_of, text_of
from envs.tasks.single import ONE_REPLY
from envs.types import Row

NAME = "mmtom"
OPTIONS = re.compile(r"(.*)\(a\)(.*)\(b\)(.*?)(?:Please respond with either a or b\.?)?\s*\Z", re.DOTALL)


class Likelier(ChoiceData):
    """A question, and two statements of which one is likelier."""

    question: str
    type: str


def spec() -> TaskSpec:
    """The registry's entry."""
    return TaskSpec(
        name=NAME,
        axis="COG",
        version=2,
        metric=Metric("accuracy"),
        cluster="episode",
        licence="MIT",
        env=lambda profile: ChoiceEnv(read_item, profile, author_rule),
        rows=no_rows(NAME),
        read=READ,
        seats=(SEAT,),
        profiles=("strict", "soul", "author"),
        feedback=FeedbackPolicy("rule", sees_gold=True),
        limits=ONE_REPLY,
        splits=("test",),
        source=Source("https://github.com/chuanyangjin/MMToM-QA", "cba94f39369828bf6f6173d3b8fd36f128fa0926"),
        part=lambda row: f"type {row.data['type']}",
        samples=samples_of(read_item),
        examples=READ.examples(EXAMPLES),
    )


def read_item(row: Row) -> Item:
    """The question of a row. Raises DataError."""
    d = data_of(Likelier, row)
    return Item(d.question, d.choices, d.index)


def _make(record: Mapping[str, Any], where: str) -> Made:
    found = OPTIONS.match(str(field(record, "question", where=where)))
    if found is None:
        raise DataError("no two options (a) and (b)", where=where, fix="write them at the end of the question")
    text, *options = (part.strip() for part in found.groups())
    choices = tuple(options)
    values = {
        "question": text,
        "choices": choices,
        "answer": answer_text(str(field(record, "answer", where=where)).strip().upper(), choices),
        "type": str(record.get("question_type", "all")),
    }
    yield text_of(record, "episode", default=cluster_of(text)), checked(Likelier, values, where)


READ = Reader(NAME, _make, (NAME,))

EXAMPLES: Sequence[Mapping[str, Any]] = tuple(
    {
        "question": f"Ada opens the {first}, closes it and walks to the {second}. Which one is more likely? "
        f"(a) Ada looks for a cup. (b) Ada looks for the {first}. Please respond with either a or b.",
        "answer": "a",
        "question_type": kind,
        "episode": number,
    }
    for number, (first, second, kind) in enumerate((("fridge", "stove", 1.1), ("cabinet", "sofa", 2.1)))
)
"""Invented, in the authors' form."""


def author_rule(item: Item, reply: str) -> int | None:
    """The authors compare the first character (testing_gpt.py): "A person…" is a."""
    letter = reply.strip().lower()[:1]
    return "ab".index(letter) if letter in ("a", "b") else None
