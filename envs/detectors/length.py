"""Batch level: does length earn reward, beyond chance? Pure.

Within each group (samples of one prompt) length and reward are ranked; the mean rank correlation over groups drifts
up when longer answers are paid for being longer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from envs.ranks import spearman

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
    large = [group for group in groups if len(group) >= MIN_GROUP]
    correlations = [spearman([length for length, _ in g], [reward for _, reward in g]) for g in large]
    values = [rho for rho in correlations if rho is not None]
    n = len(values)
    if n == 0:
        return LengthExploit(0.0, 0.0, 0)
    mean = sum(values) / n
    variance = sum((v - mean) ** 2 for v in values) / (n - 1) if n > 1 else 0.0
    return LengthExploit(mean, math.sqrt(variance / n), n)
