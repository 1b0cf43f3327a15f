"""ToMBench: bilingual theory-of-mind multiple choice, in the authors' format and in OdysSim's."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from common.errors import DataError
from envs.registry import FeedbackPolicy, Metric, Source, TaskSpec, no_rows
from envs.tasks.choice import LETTERS, SEAT, ChoiceEnv, Item, samples
from envs.tasks.files import field, read_records
from envs.tasks.reading import cluster_of
from envs.tasks.tombench.author import extract_letter
from envs.types import Limits, Row, Seat

NAME = "tombench"
OPTION_COLUMNS = {"en": "OPTION-{}", "zh": "选项{}"}
TEXT_COLUMNS = {"en": ("STORY", "QUESTION"), "zh": ("故事", "问题")}
LABEL = re.compile(r"\A\s*[A-D][.．、:：]\s*")
"""Some of the authors' options repeat their own letter."""
ANSWER_COLUMN = "答案\nANSWER"
ABILITY_COLUMN = "能力\nABILITY"

EXAMPLES: tuple[Mapping[str, Any], ...] = (
    {
        "STORY": "Tom promises to be quiet and then sings.",
        "QUESTION": "What does his sister feel?",
        **{f"OPTION-{letter}": text for letter, text in zip("ABCD", ("Joy", "Anger", "Fear", "Pride"), strict=True)},
        "故事": "汤姆答应安静，然后唱起歌来。",
        "问题": "他的妹妹有什么感觉？",
        **{f"选项{letter}": text for letter, text in zip("ABCD", ("快乐", "生气", "害怕", "骄傲"), strict=True)},
        ANSWER_COLUMN: "B",
        ABILITY_COLUMN: "Emotion: invented",
    },
    {
        "language": "en",
        "story": "Ida hides a gift for Leo.",
        "question": "Does Leo know where it is?",
        "options_dict": {"A": "Yes", "B": "No", "C": None, "D": None},
        "correct_letter": "B",
        "ability": "Knowledge",
    },
)
"""Invented, in the authors' form and in OdysSim's."""


def spec() -> TaskSpec:
    """The registry's entry."""
    return TaskSpec(
        name=NAME,
        axis="COG",
        version=1,
        metric=Metric("accuracy"),
        cluster="story",
        licence="MIT",
        env=lambda profile: ChoiceEnv(read_item, profile, author_rule),
        rows=no_rows(NAME),
        read=read_rows,
        seats=(SEAT,),
        profiles=("strict", "soul", "author"),
        feedback=FeedbackPolicy("rule", sees_gold=True),
        limits=Limits(max_turns=1, max_tokens=1024),
        splits=("test",),
        source=Source("https://github.com/zhchen18/ToMBench", "4f491f0784ed31ef93a8837615fbc48f885cf78d"),
        part=lambda row: str(row.data["part"]),
        samples=_samples,
        examples=lambda: list(_rows(EXAMPLES)),
    )


def read_rows(path: Path) -> Iterator[Row]:
    """Both languages of every record of the authors' files; OdysSim's records as they are."""
    return _rows(read_records(path))


def _rows(records: Iterable[Mapping[str, Any]]) -> Iterator[Row]:
    for number, record in enumerate(records):
        languages = ("en", "zh") if ANSWER_COLUMN in record else (str(field(record, "language")),)
        for language in languages:
            item = _authors(record, language) if ANSWER_COLUMN in record else _odyssim(record)
            ability = record.get(ABILITY_COLUMN) or record.get("_task") or record.get("ability") or "all"
            part = f"{language}: {str(ability).partition(':')[0]}"
            data = {"story": item[0], "question": item[1], "options": item[2], "answer": item[3], "part": part}
            # Several questions are about one story, and both languages of a record are about the same one.
            story = record[TEXT_COLUMNS["en"][0]] if ANSWER_COLUMN in record else item[0]
            yield Row(NAME, f"{language}-{number}", cluster_of(story), data)


def read_item(row: Row) -> Item:
    """The question of a row. Raises DataError."""
    d = row.data
    options = tuple(str(o) for o in field(d, "options", where=row.prompt_id))
    letter = str(field(d, "answer", where=row.prompt_id))
    if letter not in LETTERS[: len(options)] or len(letter) != 1:
        raise DataError(f"answer {letter!r} is not one of {len(options)} options", where=row.prompt_id)
    return Item(f"{d['story']}\n\n{d['question']}", options, LETTERS.index(letter))


def author_rule(item: Item, reply: str) -> int | None:
    """One run of the authors' rule (they take the majority of five with shuffled options)."""
    index = LETTERS.index(extract_letter(reply))
    return index if index < len(item.options) else None


def _authors(record: Mapping[str, Any], language: str) -> tuple[str, str, list[str], str]:
    column = partial(OPTION_COLUMNS[language].format)
    options = [LABEL.sub("", str(record[column(letter)])) for letter in "ABCD" if record.get(column(letter))]
    story, question = (str(record[name]) for name in TEXT_COLUMNS[language])
    return story, question, options, str(record[ANSWER_COLUMN]).strip()


def _odyssim(record: Mapping[str, Any]) -> tuple[str, str, list[str], str]:
    options = record.get("options_dict") or record.get("options") or {}
    listed = [str(options[k]) for k in sorted(options) if options[k]] if isinstance(options, dict) else list(options)
    return (
        str(field(record, "story")),
        str(field(record, "question")),
        listed,
        str(field(record, "correct_letter")).strip().upper(),
    )


def _samples(row: Row, seat: Seat) -> Sequence[str]:
    return samples(read_item(row))
