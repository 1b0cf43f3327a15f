"""The seven dimensions of Sotopia (sotopia-lab/sotopia @a0aaafb) and the numbers made of them. Pure.

author: plain mean of the raw scores, although their ranges differ (at most 40 / 7 = 5.71). soul: 0.1 times that mean
(OdysSim). strict: mean of the scores on their own ranges, in [0, 1], weighted as OdysSim's unused reward was.
"""

from __future__ import annotations

from collections.abc import Mapping

RANGES: Mapping[str, tuple[float, float]] = {
    "believability": (0, 10),
    "relationship": (-5, 5),
    "knowledge": (0, 10),
    "secret": (-10, 0),
    "social_rules": (-10, 0),
    "financial_and_material_benefits": (-5, 5),
    "goal": (0, 10),
}
WEIGHTS: Mapping[str, float] = {
    "believability": 0.5,
    "relationship": 1.0,
    "knowledge": 1.0,
    "secret": 0.5,
    "social_rules": 0.5,
    "financial_and_material_benefits": 0.5,
    "goal": 2.0,
}
SOUL_FACTOR = 0.1


def check(scores: Mapping[str, float]) -> None:
    """Raise ValueError unless every dimension is there, within its range."""
    wrong = [name for name, (low, high) in RANGES.items() if name not in scores or not low <= scores[name] <= high]
    if wrong:
        raise ValueError(f"missing or out of range: {', '.join(wrong)}")


def author_overall(scores: Mapping[str, float]) -> float:
    """Mean of the raw scores."""
    return sum(scores[name] for name in RANGES) / len(RANGES)


def author_unit(scores: Mapping[str, float]) -> float:
    """`author_overall` moved from its range (-30/7 to 40/7) to [0, 1]. Raises ValueError."""
    check(scores)
    low, high = (sum(bound[i] for bound in RANGES.values()) / len(RANGES) for i in (0, 1))
    return (author_overall(scores) - low) / (high - low)


def soul_score(scores: Mapping[str, float]) -> float:
    """OdysSim's reward: may be negative; never used as ours."""
    return SOUL_FACTOR * author_overall(scores)


def strict_score(scores: Mapping[str, float]) -> float:
    """Weighted mean of range-normalised scores, in [0, 1]. Raises ValueError."""
    check(scores)
    parts = {name: (scores[name] - low) / (high - low) for name, (low, high) in RANGES.items()}
    return sum(WEIGHTS[name] * part for name, part in parts.items()) / sum(WEIGHTS.values())
