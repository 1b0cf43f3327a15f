"""Single-turn multiple choice, shared by the tasks whose reply is one of a few options. Pure.

A task gives a reader (row → Item); everything else is here: the prompt's answer format, parsing, scoring, feedback.
Scorer profiles:
* strict (reward): exactly one `<answer>` block that names exactly one option, by letter or text; anything else is a
  format error, score 0;
* soul (OdysSim's rule): the first `<answer>` block that holds one letter; tasks with another rule give theirs;
* author, where the task gives its benchmark's own rule.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from pydantic import model_validator

from envs.env import Feedback
from envs.registry import Profile
from envs.tasks.schema import RowData
from envs.tasks.single import SEAT, Asked, SingleTurn, chat, only_answer, without_thought
from envs.types import Message, Outcome, Row, Score, Seat

__all__ = ["FORMAT", "LETTERS", "SEAT", "ChoiceData", "ChoiceEnv", "Item"]

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
FORMAT = "Think first if you like, then give the letter of one option as <answer>X</answer>."
LETTER_TAG = re.compile(r"<answer>\s*([A-Z])\s*</answer>", re.IGNORECASE)
LABEL = re.compile(r"\A\s*\(?([A-Z])[.):：．、]\s*")
"""An option's own letter at its start, e.g. "B. " or "(B) "."""


class ChoiceData(RowData):
    """The part of a row's schema that every choice task has; tasks add what the prompt is written from."""

    choices: tuple[str, ...]
    answer: str
    """The text of the right choice."""

    @model_validator(mode="after")
    def _answer_is_a_choice(self) -> ChoiceData:
        if not 2 <= len(self.choices) <= len(LETTERS) or not all(c.strip() for c in self.choices):
            raise ValueError(f"a choice needs 2 to {len(LETTERS)} options with text")
        if self.answer not in self.choices:
            raise ValueError("the answer is none of the choices")
        return self

    @property
    def index(self) -> int:
        """Position of the right choice."""
        return self.choices.index(self.answer)


@dataclass(frozen=True)
class Item:
    """A question with its options; `answer` is the index of the right one. `system` says who answers, if anyone."""

    question: str
    options: tuple[str, ...]
    answer: int
    system: str = ""

    @property
    def letter(self) -> str:
        return LETTERS[self.answer]

    @property
    def prompt(self) -> str:
        listed = "\n".join(f"{LETTERS[i]}. {option}" for i, option in enumerate(self.options))
        return f"{self.question}\n\n{listed}\n\n{FORMAT}"


Rule = Callable[[Item, str], int | None]
"""The index that a rule reads in a reply, or None."""


@dataclass(frozen=True)
class ChoiceEnv(SingleTurn[Item]):
    """One seat reads and answers once. `hint` is what a teacher may see beyond the question, if anything."""

    read: Callable[[Row], Item]
    profile: Profile = "strict"
    author: Rule | None = None
    hint: Callable[[Row], str | None] = lambda row: None
    soul: Rule | None = None
    seats: tuple[Seat, ...] = (SEAT,)

    def start(self, row: Row, rng: Random) -> Asked[Item]:
        return Asked(self.read(row))

    def messages(self, question: Item) -> Sequence[Message]:
        return chat(question.system, question.prompt)

    def score(self, state: Asked[Item]) -> Mapping[Seat, Outcome]:
        chosen = self._chosen(state)
        if chosen is None:
            return {SEAT: Score(0.0, format_error=True, explanation="no readable answer")}
        return {SEAT: Score(float(is_right(state.question, chosen)), explanation=f"chose {LETTERS[chosen]}")}

    def feedback(self, state: Asked[Item], seat: Seat) -> Feedback | None:
        """By rule: what is wrong with the form, or that the option is wrong (its letter, not the right one's)."""
        chosen = self._chosen(state)
        if chosen is None:
            return Feedback(f"Your last reply had no single readable answer. {FORMAT}", sees_gold=False)
        if is_right(state.question, chosen):
            return None
        wrong = f"{LETTERS[chosen]} ({state.question.options[chosen]})"
        return Feedback(f"You answered {wrong} before. That is not right: reconsider each option.", sees_gold=True)

    def privileged(self, row: Row, seat: Seat) -> str | None:
        return self.hint(row)

    def _chosen(self, state: Asked[Item]) -> int | None:
        reply = state.reply or ""
        if self.profile == "author" and self.author is not None:
            return self.author(state.question, reply)
        if self.profile == "soul":
            return (self.soul or soul_choice)(state.question, reply)
        return strict_choice(state.question, reply)


def is_right(item: Item, chosen: int) -> bool:
    """Whether the chosen option says what the right one says: published rows repeat an option now and then."""
    return item.options[chosen] == item.options[item.answer]


def strict_choice(item: Item, reply: str) -> int | None:
    """The one option that the one answer block names, else None."""
    answer = only_answer(reply)
    if answer is None:
        return None
    given = answer.casefold()
    named = {
        option: i
        for i, option in enumerate(item.options)
        for letter in (LETTERS[i],)
        if given in {s.casefold() for s in (letter, f"{letter}.", f"({letter})", option, f"{letter}. {option}")}
    }
    return next(iter(named.values())) if len(named) == 1 else None


def soul_choice(item: Item, reply: str) -> int | None:
    """The letter of the first answer block that holds nothing but a letter."""
    found = LETTER_TAG.search(without_thought(reply))
    return index_of(item, found.group(1)) if found else None


def index_of(item: Item, letter: str) -> int | None:
    """The position that a letter names, if there is such an option."""
    return LETTERS.index(letter.upper()) if letter.upper() in LETTERS[: len(item.options)] else None


def told_answer(read: Callable[[Row], Item]) -> Callable[[Row], str]:
    """A teacher's hint that gives the answer away: "The answer is B. text"."""

    def hint(row: Row) -> str:
        item = read(row)
        return f"The answer is {item.letter}. {item.options[item.answer]}"

    return hint


def unlabelled(options: Sequence[str]) -> tuple[str, ...]:
    """Options without their own letters, where every option carries the letter of its place."""
    found = [LABEL.match(option) for option in options]
    if all(m is not None and m.group(1) == LETTERS[i] for i, m in enumerate(found)):
        return tuple(option[m.end() :].strip() for option, m in zip(options, found, strict=True) if m is not None)
    return tuple(option.strip() for option in options)


def answer_text(given: Any, choices: Sequence[str]) -> str:
    """The choice that a published answer names: its index, its letter ("B", "B. text"), or its text.

    What names no choice comes back as it is, and the row's schema refuses it.
    """
    if isinstance(given, int) and not isinstance(given, bool):
        return choices[given] if 0 <= given < len(choices) else f"index {given}"
    text = str(given).strip()
    if text in choices:
        return text
    label = LABEL.match(text)
    letter = text.upper() if len(text) == 1 else label.group(1) if label else ""
    return choices[LETTERS.index(letter)] if letter and letter in LETTERS[: len(choices)] else text


def samples_of(read: Callable[[Row], Item]) -> Callable[[Row, Seat], list[str]]:
    """`TaskSpec.samples` of a task whose rows `read` reads."""
    return lambda row, seat: samples(read(row))


def samples(item: Item) -> list[str]:
    """A right answer, a wrong one, and replies that strict must not reward."""
    wrong = LETTERS[(item.answer + 1) % len(item.options)]
    everything = " ".join(f"<answer>{LETTERS[i]}</answer>" for i in range(len(item.options)))
    return [f"<answer>{item.letter}</answer>", f"<answer>{wrong}</answer>", everything, f"{item.letter} or {wrong}"]
