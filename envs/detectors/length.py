"""Batch level: does length earn reward, beyond chance? Pure.

Within each group (samples of one prompt) length and reward are ranked; the mean rank correlation over groups drifts
up when longer answers are paid for being longer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

MIN_GROUP = 3


@dataclass(frozen=True)
class LengthExploit:
    """Mean Spearman correlation of length and reward over groups, and its standard error."""

    correlation: float
    standard_error: float
    groups: int

    @property
    def significant(self) -> bool:
        """Above zero by more than 1.96 standard errors."""
        return self.groups > 1 and self.correlation > 1.96 * self.standard_error


def measure(groups: Sequence[Sequence[tuple[int, float]]]) -> LengthExploit:
    """`groups` of (length, reward); groups that are too small or without variation are left out."""
    values = [rho for group in groups if len(group) >= MIN_GROUP and (rho := spearman(group)) is not None]
    n = len(values)
    if n == 0:
        return LengthExploit(0.0, 0.0, 0)
    mean = sum(values) / n
    variance = sum((v - mean) ** 2 for v in values) / (n - 1) if n > 1 else 0.0
    return LengthExploit(mean, math.sqrt(variance / n), n)


def spearman(pairs: Sequence[tuple[float, float]]) -> float | None:
    """Rank correlation with mean ranks for ties; None when one side does not vary."""
    x, y = (ranks([p[i] for p in pairs]) for i in (0, 1))
    mean = (len(pairs) + 1) / 2
    sxx, syy = (sum((r - mean) ** 2 for r in side) for side in (x, y))
    if sxx == 0 or syy == 0:
        return None
    return sum((a - mean) * (b - mean) for a, b in zip(x, y, strict=True)) / math.sqrt(sxx * syy)


def ranks(values: Sequence[float]) -> list[float]:
    """Ranks from 1; equal values share their mean rank."""
    order = sorted(range(len(values)), key=values.__getitem__)
    out = [0.0] * len(values)
    start = 0
    while start < len(order):
        end = start
        while end < len(order) and values[order[end]] == values[order[start]]:
            end += 1
        for i in order[start:end]:
            out[i] = (start + 1 + end) / 2
        start = end
    return out
