"""MMToM-QA, text only: which of two statements about a person's belief or goal is more likely."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from common.errors import DataError
from envs.registry import FeedbackPolicy, Metric, Source, TaskSpec, no_rows
from envs.tasks.choice import SEAT, ChoiceEnv, Item, samples
from envs.tasks.files import field, read_records
from envs.types import Limits, Row, Seat

NAME = "mmtom"
OPTIONS = re.compile(r"(.*)\(a\)(.*)\(b\)(.*?)(?:Please respond with either a or b\.?)?\s*\Z", re.DOTALL)

EXAMPLES: tuple[Mapping[str, Any], ...] = tuple(
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


def spec() -> TaskSpec:
    """The registry's entry."""
    return TaskSpec(
        name=NAME,
        axis="COG",
        version=1,
        metric=Metric("accuracy"),
        cluster="episode",
        licence="MIT",
        env=lambda profile: ChoiceEnv(read_item, profile, author_rule),
        rows=no_rows(NAME),
        read=read_rows,
        seats=(SEAT,),
        profiles=("strict", "soul", "author"),
        feedback=FeedbackPolicy("rule", sees_gold=True),
        limits=Limits(max_turns=1, max_tokens=1024),
        splits=("test",),
        source=Source("https://github.com/chuanyangjin/MMToM-QA", "cba94f39369828bf6f6173d3b8fd36f128fa0926"),
        part=lambda row: f"type {row.data['question_type']}",
        samples=_samples,
        examples=lambda: list(_rows(EXAMPLES)),
    )


def read_rows(path: Path) -> Iterator[Row]:
    """The authors' questions.json (or OdysSim's rows with the same fields)."""
    return _rows(read_records(path))


def _rows(records: Iterable[Mapping[str, Any]]) -> Iterator[Row]:
    for number, record in enumerate(records):
        data = {
            "question": str(field(record, "question")),
            "answer": str(field(record, "answer")).strip().lower(),
            "question_type": str(record.get("question_type", "all")),
        }
        yield Row(NAME, str(number), str(record.get("episode", number)), data)


def read_item(row: Row) -> Item:
    """The question of a row. Raises DataError."""
    found = OPTIONS.match(str(row.data["question"]))
    if found is None or row.data["answer"] not in ("a", "b"):
        raise DataError("no two options (a) and (b) with an answer a or b", where=row.prompt_id)
    text, first, second = (part.strip() for part in found.groups())
    return Item(text, (first, second), "ab".index(row.data["answer"]))


def author_rule(item: Item, reply: str) -> int | None:
    """The authors compare the first character (testing_gpt.py): "A person…" is a."""
    letter = reply.strip().lower()[:1]
    return "ab".index(letter) if letter in ("a", "b") else None


def _samples(row: Row, seat: Seat) -> Sequence[str]:
    return samples(read_item(row))
