"""ToMBench: bilingual theory-of-mind multiple choice, in the authors' format and in OdysSim's."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from envs.registry import FeedbackPolicy, Metric, Source, TaskSpec, no_rows
from envs.tasks.choice import LETTERS, SEAT, ChoiceData, ChoiceEnv, Item, answer_text, samples_of
from envs.tasks.files import field
from envs.tasks.reading import Made, Reader, cluster_of
from envs.tasks.schema import checked, data_of
from envs.tasks.single import ONE_REPLY
from envs.tasks.tombench.author import extract_letter
from envs.types import Row

NAME = "tombench"
OPTION_COLUMNS = {"en": "OPTION-{}", "zh": "选项{}"}
TEXT_COLUMNS = {"en": ("STORY", "QUESTION"), "zh": ("故事", "问题")}
LABEL = re.compile(r"\A\s*[A-D][.．、:：]\s*")
"""Some of the authors' options repeat their own letter."""
ANSWER_COLUMN = "答案\nANSWER"
ABILITY_COLUMN = "能力\nABILITY"


class Question(ChoiceData):
    """A story and a question about it, in one language."""

    story: str
    question: str
    part: str


def spec() -> TaskSpec:
    """The registry's entry."""
    return TaskSpec(
        name=NAME,
        axis="COG",
        version=2,
        metric=Metric("accuracy"),
        cluster="story",
        licence="MIT",
        env=lambda profile: ChoiceEnv(read_item, profile, author_rule),
        rows=no_rows(NAME),
        read=READ,
        seats=(SEAT,),
        profiles=("strict", "soul", "author"),
        feedback=FeedbackPolicy("rule", sees_gold=True),
        limits=ONE_REPLY,
        splits=("test",),
        source=Source("https://github.com/zhchen18/ToMBench", "4f491f0784ed31ef93a8837615fbc48f885cf78d"),
        part=lambda row: str(row.data["part"]),
        samples=samples_of(read_item),
        examples=READ.examples(EXAMPLES),
    )


def read_item(row: Row) -> Item:
    """The question of a row. Raises DataError."""
    d = data_of(Question, row)
    return Item(f"{d.story}\n\n{d.question}", d.choices, d.index)


def author_rule(item: Item, reply: str) -> int | None:
    """One run of the authors' rule (they take the majority of five with shuffled options)."""
    index = LETTERS.index(extract_letter(reply))
    return index if index < len(item.options) else None


def _make(record: Mapping[str, Any], where: str) -> Made:
    """Both languages of a record of the authors' files; OdysSim's record as it is."""
    authors = ANSWER_COLUMN in record
    letter = str(field(record, ANSWER_COLUMN if authors else "correct_letter", where=where)).strip().upper()
    ability = record.get(ABILITY_COLUMN) or record.get("_task") or record.get("ability") or "all"
    for language in ("en", "zh") if authors else (str(field(record, "language", where=where)),):
        story, question, options = (_authors if authors else _odyssim)(record, language, where)
        values = {
            "story": story,
            "question": question,
            "choices": options,
            "answer": answer_text(letter, options),
            "part": f"{language}: {str(ability).partition(':')[0]}",
        }
        # Several questions are about one story, and both languages of a record are about the same one.
        about = str(record[TEXT_COLUMNS["en"][0]]) if authors else story
        yield cluster_of(about), checked(Question, values, where)


def _authors(record: Mapping[str, Any], language: str, where: str) -> tuple[str, str, tuple[str, ...]]:
    columns = [OPTION_COLUMNS[language].format(letter) for letter in "ABCD"]
    story, question = (str(field(record, name, where=where)) for name in TEXT_COLUMNS[language])
    return story, question, tuple(LABEL.sub("", str(record[c])) for c in columns if record.get(c))


def _odyssim(record: Mapping[str, Any], language: str, where: str) -> tuple[str, str, tuple[str, ...]]:
    options = field(record, "options_dict", "options", where=where)
    listed = [options[k] for k in sorted(options) if options[k]] if isinstance(options, Mapping) else options
    story, question = (str(field(record, name, where=where)) for name in ("story", "question"))
    return story, question, tuple(str(option) for option in listed)


READ = Reader(NAME, _make, (NAME,))

EXAMPLES: Sequence[Mapping[str, Any]] = (
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
