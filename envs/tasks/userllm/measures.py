"""UserLM's measures of a simulated user's turn (arXiv:2510.06552), each with its direction. Pure.

Intent overlap is |I ∩ U| / |U| over content words: people use other words, bit by bit, so LOWER is better.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import combinations

from envs.registry import Metric
from envs.tasks.quoting import copied_share

END = "<|endconversation|>"
OVERLAP, DIVERSITY, TERMINATION = "intent overlap", "first-turn diversity", "termination F1"
ROLE, ADHERENCE, HUMAN = "role adherence", "intent adherence", "human-likeness"
DIRECTIONS: Mapping[str, Metric] = {
    OVERLAP: Metric(OVERLAP, higher_is_better=False),
    DIVERSITY: Metric(DIVERSITY),
    TERMINATION: Metric(TERMINATION),
    ROLE: Metric(ROLE),
    ADHERENCE: Metric(ADHERENCE),
    HUMAN: Metric(HUMAN),
}
FUNCTION_WORDS = """
a an the and or but if so as of at by for from in into on onto to with about than then that this these those there
here it its he she they them his her their we us our you your i me my is are was were be been being am do does did
have has had can could will would shall should may might must not no nor what which who whom whose when where why
how all any some each more most other such only own same too very just also up out over under again once
"""
STOP_WORDS = frozenset(FUNCTION_WORDS.split())
MAX_COPIED = 0.5
ORDINARY = 10
"""Content words of an ordinary turn: about twenty words."""
COPIED_RUN = 8
"""Words in a row from the intent that are a copy, however long the turn is."""


def words(text: str) -> list[str]:
    """Lower-case words."""
    return re.findall(r"[^\W_]+(?:['’][^\W_]+)?", text.lower())


def content_words(text: str) -> set[str]:
    """Words that are no function words."""
    return set(words(text)) - STOP_WORDS


def overlap(intent: str, turn: str) -> float | None:
    """Share of the turn's content words that the intent has; None for a turn without content words."""
    own = content_words(turn)
    return len(own & content_words(intent)) / len(own) if own else None


def borrowed(intent: str, turn: str) -> float:
    """Content words taken from the intent, over those of an ordinary turn: 1 from `ORDINARY` words on.

    A count, no share of the turn: words that are added take nothing from it. 1 for a turn without content words.
    """
    own = content_words(turn)
    return min(1.0, len(own & content_words(intent)) / ORDINARY) if own else 1.0


def copies(intent: str, turn: str) -> bool:
    """Whether the turn mostly repeats the intent, or holds a long run of it."""
    return copied_share(turn, intent) > MAX_COPIED or copied_share(turn, intent, COPIED_RUN) > 0


def mentioned(choices: Sequence[str], turn: str) -> int:
    """How many of the answer options the turn names, as whole words."""
    said = f" {' '.join(words(turn))} "
    return sum(f" {' '.join(words(choice))} " in said for choice in choices)


def first_turn_diversity(turns: Sequence[str]) -> float | None:
    """Mean pairwise Jaccard distance of the turns' word sets; None below two turns."""
    sets = [frozenset(words(turn)) for turn in turns]
    distances = [1 - len(a & b) / len(a | b) if a | b else 0.0 for a, b in combinations(sets, 2)]
    return sum(distances) / len(distances) if distances else None


def termination_f1(ended: Sequence[bool], last: Sequence[bool]) -> float | None:
    """F1 of ending where the conversation ended; None where no conversation ends and none was ended."""
    hits = sum(e and t for e, t in zip(ended, last, strict=True))
    total = sum(ended) + sum(last)
    return 2 * hits / total if total else None
