"""Detector findings as rates per task and step, with Wilson intervals and a drift alarm. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from envs.types import Finding

Z_95 = 1.959963984540054


@dataclass(frozen=True)
class Rate:
    """k of n, with its 95 % Wilson interval."""

    k: int
    n: int

    @property
    def value(self) -> float:
        return self.k / self.n if self.n else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        if self.n == 0:
            return 0.0, 1.0
        p, z2 = self.value, Z_95**2
        middle = (p + z2 / (2 * self.n)) / (1 + z2 / self.n)
        half = Z_95 * math.sqrt(p * (1 - p) / self.n + z2 / (4 * self.n**2)) / (1 + z2 / self.n)
        return max(0.0, middle - half), min(1.0, middle + half)


def rates(episodes: Iterable[Iterable[Finding]], turns: int, names: Iterable[str]) -> dict[str, Rate]:
    """Share of turns with a finding, per detector; detectors that found nothing are there with 0.

    episodes: the findings of each episode. turns: how many turns were inspected in all.
    """
    hits: dict[str, int] = dict.fromkeys(names, 0)
    for findings in episodes:
        for detector, _, _ in {(f.detector, f.seat, f.turn) for f in findings}:
            hits[detector] += 1
    return {name: Rate(k, turns) for name, k in hits.items()}


@dataclass(frozen=True)
class Drift:
    """An exponentially weighted rate and its alarm: the state is a value, `seen` gives the next one."""

    mean: float
    weight: float = 0.1
    limit_sigmas: float = 4.0
    alarm: bool = False

    def seen(self, rate: Rate) -> Drift:
        """After one more step; the alarm is up when the step's rate is far above what was usual."""
        usual = max(self.mean, 1e-3)
        sigma = math.sqrt(usual * (1 - min(usual, 1.0)) / max(1, rate.n))
        alarm = rate.value > usual + self.limit_sigmas * sigma
        return Drift(self.mean + self.weight * (rate.value - self.mean), self.weight, self.limit_sigmas, alarm)


def summary(found: Mapping[str, Rate]) -> dict[str, float]:
    """Flat metrics, e.g. {"hack/repetition": 0.01}."""
    return {f"hack/{name}": rate.value for name, rate in sorted(found.items())}
