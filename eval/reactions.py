"""D4 of tau-USI conditioned on the agent's errors: does a customer react where there is something to react to? Pure.

Pooled D4 (envs/tasks/tau_usi/usi.py) compares rates of emotion, accusation and change of mind wherever they occur: a
customer who is annoyed at random scores as well as one who is annoyed at mistakes. Here the rates after an agent's
error and after its other turns are kept apart; the contrast is their mean difference. With turns of people, each side
is compared with theirs by the same Dice similarity. An agent's turn is an error when it admits one, or when a tool
that it called since the customer last spoke failed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.config import Config
from common.errors import DataError
from common.files import read_jsonl
from envs.tasks.tau_usi.env import AGENT, CUSTOMER
from envs.tasks.tau_usi.features import DIMENSIONS, measure
from envs.tasks.tau_usi.prompts import calls_in
from envs.tasks.tau_usi.rows import NAME
from envs.tasks.tau_usi.usi import similarity
from envs.types import Episode

FEATURES = DIMENSIONS["D4 reaction"]
ADMITTED = re.compile(
    r"\b(?:i apologi[sz]e for (?:the|my|that)|my (?:mistake|apologies)|i made (?:a mistake|an error)|"
    r"i was (?:wrong|mistaken)|(?:an|the) error (?:occurred|happened)|something went wrong|"
    r"that (?:was|is) (?:incorrect|not correct))\b",
    re.IGNORECASE,
)
TOOL_FAILED = re.compile(r"^(?:\w+: )?Error: ", re.MULTILINE)
"""A tool's error in the results that the agent is shown: with the tool's name in front, or of a malformed call."""


@dataclass(frozen=True)
class CustomerTurn:
    """What a customer said, and whether an agent's error came before it."""

    text: str
    after_error: bool


class Reactions(Config):
    """Rates are shares of turns, by feature of D4."""

    turns_after_error: int
    turns_otherwise: int
    after_error: dict[str, float]
    otherwise: dict[str, float]
    contrast: float
    """Mean over features of (after an error − otherwise)."""
    human_contrast: float | None = None
    d4_after_error: float | None = None
    """Similarity to people in points, after errors; None without people's turns."""
    d4_otherwise: float | None = None

    def line(self) -> str:
        text = (
            f"reactions after {self.turns_after_error} agent errors against {self.turns_otherwise} other turns: "
            f"contrast {self.contrast:+.3f}"
        )
        if self.d4_after_error is None:
            return text
        return (
            f"{text} (people {self.human_contrast:+.3f}), D4 after errors {self.d4_after_error:.1f}, "
            f"otherwise {self.d4_otherwise:.1f}"
        )


def customer_turns(episode: Episode) -> list[CustomerTurn]:
    """The customer's turns of a tau_usi episode; empty for any other task."""
    if episode.row.task != NAME:
        return []
    failed = _failed_replies(episode)
    turns, error, reply = [], False, 0
    for say in episode.says:
        if say.seat == AGENT:
            error |= reply in failed or bool(ADMITTED.search(say.text))
            reply += 1
        elif say.seat == CUSTOMER:
            turns.append(CustomerTurn(say.text, error))
            error = False
    return turns


def _failed_replies(episode: Episode) -> set[int]:
    """Which of the agent's replies were answered by a tool's error, in its own view after its first prompt.

    The prompt holds the agent's greeting, which is no reply. Only a reply with calls is answered by tools: a customer
    may write "Error" too.
    """
    failed, reply, called = set(), -1, False
    for message in episode.views.get(AGENT, ())[episode.opening.get(AGENT, 0) :]:
        if message.role == "assistant":
            reply, called = reply + 1, bool(calls_in(message.content))
        elif called and TOOL_FAILED.search(message.content):
            failed.add(reply)
    return failed


def reactions(turns: Iterable[CustomerTurn], people: Sequence[CustomerTurn] = ()) -> Reactions | None:
    """None when no turn follows an error, or none does not: there is nothing to compare."""
    own = _rates(list(turns))
    if own is None:
        return None
    after, otherwise, counts = own
    made = Reactions(
        turns_after_error=counts[0],
        turns_otherwise=counts[1],
        after_error=after,
        otherwise=otherwise,
        contrast=_contrast(after, otherwise),
    )
    theirs = _rates(people)
    if theirs is None:
        return made
    human_after, human_otherwise, _ = theirs
    return made.model_copy(
        update={
            "human_contrast": _contrast(human_after, human_otherwise),
            "d4_after_error": _points(human_after, after),
            "d4_otherwise": _points(human_otherwise, otherwise),
        }
    )


def _rates(turns: Sequence[CustomerTurn]) -> tuple[dict[str, float], dict[str, float], tuple[int, int]] | None:
    sides = [[t.text for t in turns if t.after_error is after and t.text.strip()] for after in (True, False)]
    if not all(sides):
        return None
    after, otherwise = ({name: measure(texts)[name] for name in FEATURES} for texts in sides)
    return after, otherwise, (len(sides[0]), len(sides[1]))


def _contrast(after: dict[str, float], otherwise: dict[str, float]) -> float:
    return float(np.mean([after[name] - otherwise[name] for name in FEATURES]))


def _points(real: dict[str, float], simulated: dict[str, float]) -> float:
    return 100 * float(np.mean([similarity(real[name], simulated[name]) for name in FEATURES]))


def read_people(path: Path) -> list[CustomerTurn]:
    """Turns with `after_error` of a JSON-lines file of human turns; others are left out. Raises DataError."""
    out = []
    for number, line in enumerate(read_jsonl(path), start=1):
        if "after_error" not in line:
            continue
        if not isinstance(line.get("text"), str) or not isinstance(line["after_error"], bool):
            raise DataError(
                "not a customer's turn",
                where=f"{path}, line {number}",
                fix="text and after_error (true, false)",
            )
        out.append(CustomerTurn(line["text"], line["after_error"]))
    return out
