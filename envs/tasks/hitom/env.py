"""The Hi-ToM environment: one seat reads a story and answers one question. Pure.

Reply: free text with the choice in `<answer>…</answer>`, as its letter or its text. Scorer profiles:
* strict (reward): exactly one answer block that names exactly one choice; anything else is a format error, score 0;
* soul (OdysSim's rule): the first answer block must hold the letter of the right choice.
The benchmark's authors publish no scorer. A reply is always heard; a bad one is a Score with `format_error`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal

from envs.env import Feedback
from envs.tasks.hitom.feedback import format_feedback, privileged_context, wrong_answer_feedback
from envs.tasks.hitom.rows import LETTERS, Item, prompt_text, read_item
from envs.tasks.single import SEAT, TAG, Asked, SingleTurn, chat
from envs.types import Message, Outcome, Row, Score, Seat

Profile = Literal["strict", "soul"]


@dataclass(frozen=True)
class HitomEnv(SingleTurn[Item]):
    """Rules of the task under one scorer profile."""

    profile: Profile = "strict"

    def start(self, row: Row, rng: Random) -> Asked[Item]:
        """The question of a row. Raises DataError on a malformed one."""
        return Asked(read_item(row))

    def messages(self, question: Item) -> Sequence[Message]:
        """The prompt."""
        return chat("", prompt_text(question))

    def score(self, state: Asked[Item]) -> Mapping[Seat, Outcome]:
        """1 for the right choice, else 0."""
        chosen = read_choice(state.question, state.reply or "", self.profile)
        if chosen is None:
            return {SEAT: Score(0.0, format_error=True, explanation="no readable answer")}
        right = chosen == state.question.answer
        return {SEAT: Score(float(right), explanation=f"chose {chosen}, answer {state.question.answer}")}

    def feedback(self, state: Asked[Item], seat: Seat) -> Feedback | None:
        """What went wrong; None after a right answer."""
        chosen = read_choice(state.question, state.reply or "", self.profile)
        if chosen is None:
            return format_feedback()
        return None if chosen == state.question.answer else wrong_answer_feedback(state.question, chosen)

    def privileged(self, row: Row, seat: Seat) -> str | None:
        """The events that the asked chain knows of, in order, and the answer."""
        return privileged_context(read_item(row))


def read_choice(item: Item, reply: str, profile: Profile) -> str | None:
    """The choice that a reply names, or None when it names none (or, under strict, more than one)."""
    answers = [a.strip() for a in TAG.findall(reply.rpartition("</think>")[2])]
    if not answers or (profile == "strict" and len(answers) > 1):
        return None
    return _named(item, answers[0], letters_only=profile == "soul")


def _named(item: Item, answer: str, *, letters_only: bool) -> str | None:
    """The choice that `answer` is, by its letter (where the prompt shows letters) or its text."""
    for letter, choice in zip(LETTERS, item.choices, strict=False):
        texts: tuple[str, ...] = (letter,) if letters_only else (letter, f"{letter}.", choice, f"{letter}. {choice}")
        if item.prompt == "brief":
            texts = (choice,)
        if answer.casefold() in {text.casefold() for text in texts}:
            return choice
    return None
