"""Whether a reply answers a FANToM question, under each profile. Pure.

strict (reward): one answer block; one option for multiple choice; exactly the right names, as a list, nothing else;
one polarity for yes/no; token F1 (normalised) for facts. soul: OdysSim's laxer rules. author: see `author.py`.
What strict refuses: a dumped list of all names, "yes and no", two options, an answer outside the block.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from envs.registry import Profile
from envs.tasks.fantom import author
from envs.tasks.single import TAG

Kind = Literal["choice", "list", "binary", "fact"]
SEPARATORS = re.compile(r"\s*(?:,|;|\n|&|\band\b)\s*")
POLARITY = {"yes": 1, "true": 1, "no": 0, "false": 0}
ARTICLES = re.compile(r"\b(?:a|an|the)\b")


@dataclass(frozen=True)
class Question:
    """One question. correct/wrong: names for lists; one text otherwise. index: right option of a choice."""

    kind: Kind
    correct: tuple[str, ...]
    wrong: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    index: int = 0


@dataclass(frozen=True)
class Mark:
    """`value` in [0, 1]; None when the reply has no readable answer."""

    value: float | None


def polarity(answer: str) -> int | None:
    """1 for a right answer that says yes, 0 for no ("no:long" is a no); None for anything else."""
    return POLARITY.get(answer.partition(":")[0].strip().lower())


def mark(question: Question, reply: str, profile: Profile) -> Mark:
    """Score one reply."""
    if profile == "author":
        return Mark(_author(question, reply))
    answers = TAG.findall(reply.rpartition("</think>")[2])
    if not answers or (profile == "strict" and len(answers) > 1):
        return Mark(None)
    return Mark(RULES[question.kind](question, answers[0].strip(), profile))


def _author(q: Question, reply: str) -> float:
    if q.kind == "choice":
        return float(author.choice_is_right(reply, q.index))
    if q.kind == "list":
        return float(author.list_verdict(reply, q.correct, q.wrong)[0])
    if q.kind == "binary":
        return float(author.yes_or_no(reply) == polarity(q.correct[0]))
    return author.token_f1(reply, q.correct[0])


def _choice(q: Question, given: str, profile: Profile) -> float | None:
    letter = given.strip("(). ").lower()
    if len(letter) == 1 and letter in author.LETTERS[: len(q.options)]:
        return float(author.LETTERS.index(letter) == q.index)
    if profile == "strict" and given in q.options:
        return float(q.options.index(given) == q.index)
    return None


def _list(q: Question, given: str, profile: Profile) -> float | None:
    if profile == "soul":
        named = [bool(re.search(rf"\b{re.escape(n)}\b", given, re.I)) for n in (*q.correct, *q.wrong)]
        return float(all(named[: len(q.correct)]) and not any(named[len(q.correct) :]))
    names = [n.strip(" .'\"[]()-*").casefold() for n in SEPARATORS.split(given)]
    said = [n for n in names if n]
    return float(sorted(said) == sorted(n.casefold() for n in q.correct)) if said else None


def _binary(q: Question, given: str, profile: Profile) -> float | None:
    words = [w for w in re.findall(r"[a-z']+", given.lower()) if w in POLARITY]
    polarities = {POLARITY[w] for w in words}
    if len(polarities) != 1 or (profile == "strict" and len(words) > 1):
        return None
    return float(polarities == {polarity(q.correct[0])})


def _fact(q: Question, given: str, profile: Profile) -> float | None:
    own, wanted = normalise(given), normalise(q.correct[0])
    shared = sum((Counter(own) & Counter(wanted)).values())
    return 2 * shared / (len(own) + len(wanted)) if shared else 0.0


RULES = {"choice": _choice, "list": _list, "binary": _binary, "fact": _fact}


def normalise(text: str) -> Sequence[str]:
    """Lower-case words without articles and punctuation (SQuAD)."""
    plain = text.lower().translate(str.maketrans("", "", string.punctuation))
    return ARTICLES.sub(" ", plain).split()
