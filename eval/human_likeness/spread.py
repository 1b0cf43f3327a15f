"""Do simulated people differ as people do? Between-person variance, and likeness of samples of a situation.

A model that always speaks as the same average person can match every mean and still fail here: the variance of
personal means is too small and samples of one prompt resemble each other too much (mode collapse).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from itertools import combinations, pairwise

import numpy as np

from eval.human_likeness.style import HABITS, MeasureSpec, Side, rate
from eval.human_likeness.text import Utterance, words

TRAITS: dict[str, Callable[[Side], float]] = {
    "log words per turn": lambda side: float(np.mean([math.log2(1 + len(words(u.text))) for u in side])),
    "question rate": rate(HABITS["question"]),
    "exclamation rate": rate(HABITS["exclamation"]),
    "lower-case starts": rate(HABITS["starts lower-case"]),
}
_MAX_PAIRS = 28


def between_person_sd(side: Side, trait: Callable[[Side], float]) -> float:
    """Standard deviation of personal means, less what sampling few turns adds; 0 with fewer than three people.

    Variance components of a one-way layout: Var(personal means) − mean(within variance / turns).
    """
    per: dict[str, list[Utterance]] = defaultdict(list)
    for u in side:
        per[u.person or u.conversation].append(u)
    groups = [g for g in per.values() if len(g) >= 2]
    if len(groups) < 3:
        return 0.0
    singles = [np.array([_trait(trait, u.text) for u in g]) for g in groups]
    means = np.array([s.mean() for s in singles])
    noise = float(np.mean([s.var(ddof=1) / len(s) for s in singles]))
    return math.sqrt(max(0.0, float(means.var(ddof=1)) - noise))


@lru_cache(maxsize=400_000)
def _trait(trait: Callable[[Side], float], text: str) -> float:
    return trait([Utterance(text, "")])


def self_similarity(side: Side) -> float:
    """Mean word-bigram Jaccard similarity of utterances that answer the same prompt (1: always the same words)."""
    per: dict[str, list[frozenset[tuple[str, str]]]] = defaultdict(list)
    for u in side:
        if u.prompt:
            per[u.prompt].append(bigrams(u.text))
    scores = []
    for grams in per.values():
        if len(grams) < 2:
            continue
        pairs = list(combinations(grams, 2))[:_MAX_PAIRS]
        scores.append(np.mean([jaccard(a, b) for a, b in pairs]))
    return float(np.mean(scores)) if scores else 0.0


def jaccard(a: frozenset[tuple[str, str]], b: frozenset[tuple[str, str]]) -> float:
    """Share of what either has that both have; 1 for two empty sets."""
    return len(a & b) / len(a | b) if a | b else 1.0


@lru_cache(maxsize=100_000)
def bigrams(text: str) -> frozenset[tuple[str, str]]:
    tokens = ["<s>", *words(text), "</s>"]
    return frozenset(pairwise(tokens))


def measures(generated: Sequence[Utterance], human: Sequence[Utterance]) -> list[MeasureSpec]:
    """Spread measures that both sides have the data for."""
    found = []
    if _has_people(generated) and _has_people(human):
        for name, trait in TRAITS.items():
            value = partial(between_person_sd, trait=trait)
            found.append(_spec(f"between-person sd, {name}", "between-person variance", value))
    if _has_repeats(generated) and _has_repeats(human):
        found.append(_spec("self-similarity of samples", "mode collapse", self_similarity))
    return found


def _spec(name: str, group: str, value: Callable[[Side], float]) -> MeasureSpec:
    return MeasureSpec(name, group, "difference", lambda a, b: abs(value(a) - value(b)), value)


def _has_people(side: Side) -> bool:
    turns: dict[str, int] = defaultdict(int)
    for u in side:
        turns[u.person or u.conversation] += 1
    return sum(count >= 2 for count in turns.values()) >= 6


def _has_repeats(side: Side) -> bool:
    seen: dict[str, int] = defaultdict(int)
    for u in side:
        if u.prompt:
            seen[u.prompt] += 1
    return sum(count >= 2 for count in seen.values()) >= 4
