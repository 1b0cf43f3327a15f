"""Single-turn multiple choice, shared by the tasks whose reply is one of a few options. Pure.

A task gives a reader (row → Item); everything else is here: the prompt's answer format, parsing, scoring, feedback.
Scorer profiles:
* strict (reward): exactly one `<answer>` block that names exactly one option, by letter or text; anything else is a
  format error, score 0;
* soul (OdysSim's rule): the first `<answer>` block must hold the letter;
* author, where the task gives its benchmark's own rule.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random

from envs.env import Done, Feedback
from envs.registry import Profile
from envs.types import Message, Outcome, Row, Score, Seat

SEAT = "reader"
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
FORMAT = "Think first if you like, then give the letter of one option as <answer>X</answer>."
_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL | re.IGNORECASE)


@dataclass(frozen=True)
class Item:
    """A question with its options; `answer` is the index of the right one."""

    question: str
    options: tuple[str, ...]
    answer: int

    @property
    def letter(self) -> str:
        return LETTERS[self.answer]

    @property
    def prompt(self) -> str:
        listed = "\n".join(f"{LETTERS[i]}. {option}" for i, option in enumerate(self.options))
        return f"{self.question}\n\n{listed}\n\n{FORMAT}"


AuthorRule = Callable[[Item, str], int | None]
"""The index that the benchmark's authors read in a reply, or None."""


@dataclass(frozen=True)
class Asked:
    """The question, and the reply once there is one."""

    item: Item
    reply: str | None = None


@dataclass(frozen=True)
class ChoiceEnv:
    """One seat reads and answers once. `hint` is what a teacher may see beyond the question, if anything."""

    read: Callable[[Row], Item]
    profile: Profile = "strict"
    author: AuthorRule | None = None
    hint: Callable[[Row], str | None] = lambda row: None
    seats: tuple[Seat, ...] = (SEAT,)

    def start(self, row: Row, rng: Random) -> Asked:
        return Asked(self.read(row))

    def turn(self, state: Asked) -> Sequence[Seat] | Done:
        return Done() if state.reply is not None else self.seats

    def view(self, state: Asked, seat: Seat) -> Sequence[Message]:
        prompt = Message("user", state.item.prompt)
        return [prompt] if state.reply is None else [prompt, Message("assistant", state.reply)]

    def hear(self, state: Asked, seat: Seat, text: str) -> Asked:
        return replace(state, reply=text)

    def score(self, state: Asked) -> Mapping[Seat, Outcome]:
        chosen = self._chosen(state)
        if chosen is None:
            return {SEAT: Score(0.0, format_error=True, explanation="no readable answer")}
        return {SEAT: Score(float(chosen == state.item.answer), explanation=f"chose {LETTERS[chosen]}")}

    def feedback(self, state: Asked, seat: Seat) -> Feedback | None:
        """By rule: what is wrong with the form, or that the option is wrong (its letter, not the right one's)."""
        chosen = self._chosen(state)
        if chosen is None:
            return Feedback(f"Your last reply had no single readable answer. {FORMAT}", sees_gold=False)
        if chosen == state.item.answer:
            return None
        wrong = f"{LETTERS[chosen]} ({state.item.options[chosen]})"
        return Feedback(f"You answered {wrong} before. That is not right: reconsider each option.", sees_gold=True)

    def privileged(self, row: Row, seat: Seat) -> str | None:
        return self.hint(row)

    def _chosen(self, state: Asked) -> int | None:
        reply = state.reply or ""
        if self.profile == "author" and self.author is not None:
            return self.author(state.item, reply)
        return soul_choice(state.item, reply) if self.profile == "soul" else strict_choice(state.item, reply)


def strict_choice(item: Item, reply: str) -> int | None:
    """The one option that the one answer block names, else None."""
    answers = _ANSWER.findall(reply.rpartition("</think>")[2])
    if len(answers) != 1:
        return None
    given = answers[0].strip().casefold()
    named = [
        i
        for i, option in enumerate(item.options)
        for letter in (LETTERS[i],)
        if given in {s.casefold() for s in (letter, f"{letter}.", f"({letter})", option, f"{letter}. {option}")}
    ]
    return named[0] if len(named) == 1 else None


def soul_choice(item: Item, reply: str) -> int | None:
    """The letter in the first answer block."""
    found = _ANSWER.search(reply)
    letter = found.group(1).strip().upper() if found else ""
    return LETTERS.index(letter) if len(letter) == 1 and letter in LETTERS[: len(item.options)] else None


def samples(item: Item) -> list[str]:
    """A right answer, a wrong one, and replies that strict must not reward."""
    wrong = LETTERS[(item.answer + 1) % len(item.options)]
    everything = " ".join(f"<answer>{LETTERS[i]}</answer>" for i in range(len(item.options)))
    return [f"<answer>{item.letter}</answer>", f"<answer>{wrong}</answer>", everything, f"{item.letter} or {wrong}"]
