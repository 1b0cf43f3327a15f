"""tau-USI: how close a population of simulated customers is to real ones (arXiv:2603.11245). Pure.

USI = mean of D1 to D4, [survey agreement,] and 100 (1 - ECE), in points. D: mean over features of
2 min(h, m) / (h + m) of the pooled means (1 if both are 0). ECE: tasks binned by difficulty; size-weighted gap of
success rates. Pooled rates say nothing about when a customer reacts: read D4 beside transcripts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from envs.tasks.tau_usi.features import DIMENSIONS
from envs.tasks.tau_usi.survey import Answers, agreement

CUTS = (0.2, 0.4, 0.6, 0.8)


@dataclass(frozen=True)
class Talked:
    """One conversation of a customer, real or simulated. `difficulty`: success rate of others on the same task."""

    features: Mapping[str, float]
    success: bool
    survey: Answers
    difficulty: float = 0.5


def similarity(real: float, simulated: float) -> float:
    """Dice on two rates."""
    return 2 * min(real, simulated) / (real + simulated) if real + simulated > 0 else 1.0


def dimensions(real: Sequence[Talked], simulated: Sequence[Talked]) -> dict[str, float]:
    """D1 to D4 in points, from means over conversations."""
    means = []
    for group in (real, simulated):
        rows = [one.features for one in group if one.features]
        means.append({n: fmean(r[n] for r in rows) if rows else 0.0 for names in DIMENSIONS.values() for n in names})
    return {
        name: 100 * fmean(similarity(means[0][feature], means[1][feature]) for feature in features)
        for name, features in DIMENSIONS.items()
    }


def calibration_error(real: Sequence[Talked], simulated: Sequence[Talked]) -> float:
    """ECE over paired tasks: difficulty is the real one's."""
    bins: dict[int, list[tuple[bool, bool]]] = defaultdict(list)
    for one, other in zip(real, simulated, strict=True):
        bins[sum(one.difficulty >= cut for cut in CUTS)].append((one.success, other.success))
    gaps = (len(pairs) * abs(fmean(r for r, _ in pairs) - fmean(s for _, s in pairs)) for pairs in bins.values())
    return sum(gaps) / len(real)


def usi(real: Sequence[Talked], simulated: Sequence[Talked]) -> dict[str, float]:
    """All terms and USI, for conversations paired by task; empty for none."""
    if not real:
        return {}
    found = {**dimensions(real, simulated), "calibration": 100 * (1 - calibration_error(real, simulated))}
    agreed = [a for r, s in zip(real, simulated, strict=True) if (a := agreement(r.survey, s.survey)) is not None]
    if agreed:
        found["survey agreement"] = 100 * fmean(agreed)
    return {**found, "USI": fmean(found.values())}
