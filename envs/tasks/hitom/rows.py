"""Hi-ToM rows: from the generator, or from records of the authors' or OdysSim's files; and their prompts. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import model_validator

from common.errors import DataError
from common.files import hash_json
from envs.tasks.files import read_records
from envs.tasks.hitom.generator import Difficulty, Part, Problem, generate
from envs.tasks.hitom.sentences import question, render
from envs.tasks.hitom.world import Rules, Tell
from envs.tasks.schema import RowData, checked, data_of, row_of
from envs.types import Row

TASK = "hitom"
PromptStyle = Literal["rules", "brief"]
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

RULES_NOTE = (
    "Take these rules as given. Somebody in a room sees everything that happens there until leaving it. Somebody can "
    "judge what another person thinks only from what the two have been through together: the same room, or a talk. "
    "People may lie: what somebody claims never changes what that person believes. A listener trusts a speaker who "
    "left the room later than the listener. Everybody knows who left when. A private talk is known only to the two "
    "who had it; a public claim is heard by all."
)


class Item(RowData):
    """The validated data of one row."""

    story: str
    question: str
    choices: tuple[str, ...]
    """Containers; the first is A."""
    answer: str
    order: int
    deception: bool
    length: int
    """Chapters."""
    prompt: PromptStyle
    rules: Rules
    """Which label convention answers follow."""

    @model_validator(mode="after")
    def _answer_is_one_choice(self) -> Item:
        if self.answer not in self.choices or len(set(self.choices)) != len(self.choices):
            raise ValueError("the answer is not exactly one of the choices")
        if len(self.choices) > len(LETTERS):
            raise ValueError(f"more than {len(LETTERS)} choices")
        return self

    @property
    def letter(self) -> str:
        """The letter of the answer."""
        return LETTERS[self.choices.index(self.answer)]


def generated_rows(
    part: Part,
    stories: int,
    seed: int,
    difficulty: Difficulty | None = None,
    *,
    prompt: PromptStyle = "rules",
    task: str = TASK,
) -> list[Row]:
    """All questions of `stories` generated stories, story by story, lowest order first."""
    difficulty = difficulty or Difficulty()
    return [
        row
        for problem in generate(part, stories, seed, difficulty)
        for row in problem_rows(problem, difficulty.rules, prompt, task)
    ]


def problem_rows(problem: Problem, rules: Rules, prompt: PromptStyle, task: str = TASK) -> Iterator[Row]:
    """One row for each question of a problem."""
    for asked in problem.questions:
        item = Item(
            story=render(problem.story, numbered=prompt == "rules"),
            question=question(asked.chain, asked.thing),
            choices=problem.choices,
            answer=asked.answer,
            order=asked.order,
            deception=any(isinstance(event, Tell) for event in problem.story.events),
            length=problem.chapters,
            prompt=prompt,
            rules=rules,
        )
        yield row_of(task, f"{problem.story_hash}-{asked.order}", problem.story_hash, item)


def read_rows(path: Path) -> list[Row]:
    """Rows of the authors' `Hi-ToM_data.json`, or of JSON lines or Parquet with their or OdysSim's fields."""
    rows = []
    for number, record in enumerate(read_records(path), start=1):
        inner = record.get("data")
        records = inner if isinstance(inner, list) else [record]
        rows += [row_from_record(one, where=f"{path}, record {number}") for one in records]
    return rows


def row_from_record(record: Mapping[str, Any], *, where: str = "") -> Row:
    """A row from one record: the authors' fields, or OdysSim's (`correct_answer`, `deception` as text)."""
    try:
        story = _story_lines(str(record["story"]))
        data = {
            "story": story,
            "question": str(record["question"]).strip(),
            "choices": split_choices(record["choices"]),
            "answer": str(record["answer"] if "answer" in record else record["correct_answer"]).strip(),
            "order": int(record["question_order"]),
            "deception": str(record["deception"]).lower() == "true",
            "length": int(record["story_length"]),
            "prompt": "rules",
            "rules": "authors",
        }
    except (KeyError, ValueError, TypeError) as e:
        raise DataError(f"not a Hi-ToM record: {e!r}", where=where, fix="see envs/tasks/hitom/rows.py") from e
    # The same question appears under two prompting types and can have two labels: the number keeps ids unique.
    identity = str(record.get("sample_id", hash_json([data["question"], data["choices"], data["answer"]])))
    return row_of(TASK, f"{hash_json(story)[:12]}-{identity}", hash_json(story), checked(Item, data, where))


def split_choices(choices: Any) -> tuple[str, ...]:
    """`A. x, B. y` (or a list of the options) as options; splits at the letters, so an option may hold a comma."""
    if not isinstance(choices, str):
        return tuple(str(choice) for choice in choices)
    marks = list(re.finditer(r"(?:^|,\s*)([A-Z])\. ", choices))
    letters = "".join(mark[1] for mark in marks)
    if not marks or letters != LETTERS[: len(marks)]:
        raise ValueError(f"choices are not lettered A, B, …: {choices!r:.80}")
    ends = [mark.start() for mark in marks[1:]] + [len(choices)]
    return tuple(choices[mark.end() : end].strip() for mark, end in zip(marks, ends, strict=True))


def read_item(row: Row) -> Item:
    """The validated data of a row. Raises DataError."""
    return data_of(Item, row)


def prompt_text(item: Item) -> str:
    """What the model is asked. "brief" is story and question, nothing else: for models trained on the format.

    In the brief form every word follows a space, so that a name or a place is the same token wherever it stands.
    """
    if item.prompt == "brief":
        return f"Story: {' '.join(item.story.splitlines())} {item.question}"
    choices = "\n".join(f"{letter}. {choice}" for letter, choice in zip(LETTERS, item.choices, strict=False))
    return (
        f"Read the story, which is told in the order of events, and answer the question about it.\n\n"
        f"Story:\n{item.story}\n\n{RULES_NOTE}\n\nQuestion: {item.question}\n{choices}\n\n"
        "Think it through if you like, then give the letter of your choice as <answer>letter</answer>."
    )


def _story_lines(text: str) -> str:
    """The numbered lines of the authors' story text, without the prompt line and marks around them."""
    lines = [line.strip() for line in text.splitlines()]
    numbered = [line for line in lines if re.match(r"\d+ ", line)]
    return "\n".join(numbered or [line for line in lines if line])
