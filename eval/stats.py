"""Intervals and tests for scores that come in clusters. numpy only; every draw is seeded.

The unit that is resampled is the cluster (a story, a conversation, a book, a study), never the episode: episodes
of one cluster are not independent. All tasks are resampled together (`JointBootstrap`), so that a task mean, an
axis, the index and a difference of two models come from the same draws and can be combined.

Runs in any process; pure functions; raises ValueError on empty input (a caller's bug, never a state of a run).

Sources: percentile interval with narrowness correction: Hesterberg 2015, "What Teachers Should Know about the
Bootstrap", 4.1; score interval: Wilson 1927; Holm 1979; sign-flip test: Good 2005, ch. 3; sample size of a paired
comparison: Connor 1987.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from common.seeds import derive_seed

F64 = npt.NDArray[np.float64]

DEFAULT_DRAWS = 4_000
DEFAULT_LEVEL = 0.95
_CHUNK_CELLS = 4_000_000
_NORMAL = NormalDist()


@dataclass(frozen=True)
class Estimate:
    """A value with its interval. `n` counts episodes, `clusters` what was resampled."""

    value: float
    low: float
    high: float
    n: int
    clusters: int

    @property
    def half_width(self) -> float:
        return (self.high - self.low) / 2


@dataclass(frozen=True)
class Clustered:
    """Values summed per cluster, clusters in sorted order: the result cannot depend on who finished first.

    sums, counts: [C] float64; their ratio of totals is the mean over episodes.
    """

    sums: F64
    counts: F64

    @classmethod
    def of(
        cls, values: Sequence[float], clusters: Sequence[Hashable], *, universe: Sequence[Hashable] | None = None
    ) -> Clustered:
        """`universe` fixes the clusters (and their order) so that several statistics of one task share draws."""
        if len(values) != len(clusters):
            raise ValueError(f"{len(values)} values but {len(clusters)} cluster keys")
        keys = list(universe) if universe is not None else sorted(set(clusters), key=str)
        index = {key: i for i, key in enumerate(keys)}
        where = np.fromiter((index[c] for c in clusters), dtype=np.int64, count=len(clusters))
        v = np.asarray(values, dtype=np.float64)
        return cls(
            sums=np.bincount(where, weights=v, minlength=len(keys)).astype(np.float64),
            counts=np.bincount(where, minlength=len(keys)).astype(np.float64),
        )

    @property
    def n(self) -> int:
        return int(self.counts.sum())

    @property
    def clusters(self) -> int:
        return int((self.counts > 0).sum())

    @property
    def effective_clusters(self) -> float:
        """Kish: n² / Σ counts². Equal to `clusters` for clusters of equal size; what degrees of freedom go by."""
        return float(self.n**2 / (self.counts**2).sum()) if self.n else 0.0

    @property
    def mean(self) -> float:
        return float(self.sums.sum() / self.counts.sum()) if self.n else math.nan


class JointBootstrap:
    """Resampled means of every task from one seeded set of draws.

    Task t resamples its clusters with replacement from a generator seeded by (seed, t): adding or removing a task
    leaves the draws of the others unchanged.
    """

    def __init__(self, seed: int, *, draws: int = DEFAULT_DRAWS, level: float = DEFAULT_LEVEL) -> None:
        self.seed, self.draws, self.level = seed, draws, level

    def means(self, name: str, statistics: Sequence[Clustered]) -> F64:
        """Resampled means [draws, S] of S statistics over the same clusters; nan where a draw has no episode."""
        size = len(statistics[0].sums)
        if size == 0:
            raise ValueError(f"{name}: no cluster to resample")
        sums = np.stack([s.sums for s in statistics], axis=1)  # [C, S]
        counts = np.stack([s.counts for s in statistics], axis=1)  # [C, S]
        rng = np.random.Generator(np.random.PCG64(derive_seed(self.seed, "bootstrap", name)))
        out = np.empty((self.draws, len(statistics)))
        step = max(1, _CHUNK_CELLS // size)
        for start in range(0, self.draws, step):
            rows = min(step, self.draws - start)
            weights = _multinomial(rng, rows, size)  # [rows, C]
            with np.errstate(invalid="ignore", divide="ignore"):
                out[start : start + rows] = (weights @ sums) / (weights @ counts)
        return out

    def estimate(self, name: str, statistic: Clustered, *, draws: F64 | None = None, unit: bool = False) -> Estimate:
        """Mean and interval of one statistic; `draws` [B] reuses resampled means. `unit`: values lie in [0, 1]."""
        if not statistic.n:
            raise ValueError(f"{name}: no scored episode")
        resampled = self.means(name, [statistic])[:, 0] if draws is None else draws
        interval = self.score_interval if unit else self.interval
        low, high = interval(statistic.mean, resampled, clusters=statistic.effective_clusters)
        return Estimate(statistic.mean, low, high, statistic.n, statistic.clusters)

    def difference(self, name: str, statistic: Clustered) -> Estimate:
        """Mean and interval of paired differences of values in [0, 1]."""
        e = self.estimate(name, statistic)
        return Estimate(e.value, max(-1.0, e.low), min(1.0, e.high), e.n, e.clusters)

    def interval(self, value: float, resampled: F64, *, clusters: float) -> tuple[float, float]:
        """Percentile interval of `resampled` [B], its tails widened for few clusters (Hesterberg's correction).

        Unbounded with fewer than two clusters: one cluster says nothing about another.
        """
        finite = resampled[np.isfinite(resampled)]
        if clusters < 2 or not len(finite):
            return -math.inf, math.inf
        tail = expanded_tail(clusters, self.level)
        low, high = np.quantile(finite, [tail, 1 - tail])
        return float(min(low, value)), float(max(high, value))

    def score_interval(self, value: float, resampled: F64, *, clusters: float) -> tuple[float, float]:
        """Wilson's interval at the effective sample size value(1-value)/Var(resampled), for means of [0, 1] values.

        Percentile intervals fall short near 0 and 1 and collapse when all values agree; inverting the score test
        with the bootstrap's variance does not (tests/eval/test_stats.py measures both).
        """
        finite = resampled[np.isfinite(resampled)]
        if clusters < 2 or not len(finite):
            return 0.0, 1.0
        variance = float(np.var(finite)) * clusters / (clusters - 1)
        spread = value * (1 - value)
        # No variance seen: as if each cluster were one trial.
        effective_n = spread / variance if variance > 1e-12 and spread > 0 else clusters
        return _wilson(value, effective_n, t_quantile(0.5 + self.level / 2, clusters - 1))


def _multinomial(rng: np.random.Generator, rows: int, size: int) -> F64:
    """How often each of `size` clusters occurs in `rows` resamples of that size, [rows, size]."""
    picks = rng.integers(0, size, (rows, size))
    picks += np.arange(rows)[:, None] * size
    return np.bincount(picks.ravel(), minlength=rows * size).reshape(rows, size).astype(np.float64)


def expanded_tail(clusters: float, level: float = DEFAULT_LEVEL) -> float:
    """Tail probability that gives a percentile interval the width of a t interval with C-1 degrees of freedom."""
    t = t_quantile(0.5 + level / 2, clusters - 1)
    return _NORMAL.cdf(-math.sqrt(clusters / (clusters - 1)) * t)


def t_quantile(p: float, dof: float) -> float:
    """Student t quantile by its Cornish-Fisher series (Abramowitz and Stegun 26.7.5); exact for 1 and 2 degrees."""
    if dof < 4:
        # The series needs a few degrees; rounding down is conservative.
        dof = math.floor(dof)
    if dof == 1:
        return math.tan(math.pi * (p - 0.5))
    if dof == 2:
        return (2 * p - 1) * math.sqrt(2 / (4 * p * (1 - p)))
    z = _NORMAL.inv_cdf(p)
    g1 = (z**3 + z) / 4
    g2 = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    g3 = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    g4 = (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160
    return z + g1 / dof + g2 / dof**2 + g3 / dof**3 + g4 / dof**4


def wilson(successes: float, n: float, *, level: float = DEFAULT_LEVEL) -> tuple[float, float]:
    """Wilson's score interval of a plain proportion."""
    if n <= 0:
        raise ValueError("a proportion of nothing has no interval")
    return _wilson(successes / n, n, _NORMAL.inv_cdf(0.5 + level / 2))


def _wilson(p: float, n: float, z: float) -> tuple[float, float]:
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, min(p, centre - half)), min(1.0, max(p, centre + half))


def proportion(successes: int, n: int, *, level: float = DEFAULT_LEVEL) -> Estimate:
    """A plain proportion of independent trials with Wilson's interval."""
    low, high = wilson(successes, n, level=level)
    return Estimate(successes / n, low, high, n, n)


def sign_flip_p(cluster_sums: F64, *, seed: int, flips: int = 10_000) -> float:
    """Two-sided p-value that the summed paired differences are symmetric about zero, flipping whole clusters.

    cluster_sums: [C] sum of differences per cluster. Exact over all 2^C sign vectors up to 12 non-zero clusters, else
    Monte Carlo with the observed vector counted in (so that p is never 0 and the test keeps its level).
    """
    sums = np.asarray(cluster_sums, dtype=np.float64)
    sums = sums[sums != 0]
    size = len(sums)
    if size == 0:
        return 1.0
    tolerance = 1e-9 * float(np.abs(sums).sum())
    threshold = abs(float(sums.sum())) - tolerance
    if size <= 12:
        codes = np.arange(2**size)[:, None] >> np.arange(size) & 1
        return float(np.mean(np.abs((1 - 2 * codes) @ sums) >= threshold))
    rng = np.random.Generator(np.random.PCG64(derive_seed(seed, "sign-flip", size)))
    hits, step = 0, max(1, _CHUNK_CELLS // size)
    for start in range(0, flips, step):
        rows = min(step, flips - start)
        signs = rng.integers(0, 2, (rows, size), dtype=np.int8) * np.int8(2) - np.int8(1)
        hits += int((np.abs(signs @ sums) >= threshold).sum())
    return (hits + 1) / (flips + 1)


def mcnemar_exact(only_a: int, only_b: int) -> float:
    """Two-sided exact McNemar p-value from the two discordant counts (a binomial test at 1/2)."""
    n, k = only_a + only_b, min(only_a, only_b)
    if n == 0:
        return 1.0
    below = sum(math.exp(_log_choose(n, i) - n * math.log(2)) for i in range(k + 1))
    return min(1.0, 2 * below)


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Holm's step-down adjusted p-values, by name."""
    ordered = sorted(p_values.items(), key=lambda item: item[1])
    adjusted, running = {}, 0.0
    for rank, (name, p) in enumerate(ordered):
        running = max(running, min(1.0, p * (len(ordered) - rank)))
        adjusted[name] = running
    return {name: adjusted[name] for name in p_values}


def paired_sample_size(
    difference: float, sd: float, *, alpha: float = 0.05, power: float = 0.8, design_effect: float = 1.0
) -> int | None:
    """Paired items needed to detect `difference` with the stated power; None when it is zero.

    sd: standard deviation of the per-item difference under the alternative. With 0/1 scores and discordance d,
    sd = sqrt(d - difference^2), which makes this Connor's McNemar formula. design_effect multiplies the result
    (variance of the clustered mean over that of independent items).
    """
    if difference == 0:
        return None
    z_alpha, z_beta = _NORMAL.inv_cdf(1 - alpha / 2), _NORMAL.inv_cdf(power)
    null_sd = math.sqrt(sd * sd + difference * difference)
    return math.ceil(design_effect * (z_alpha * null_sd + z_beta * sd) ** 2 / difference**2)


def minimum_detectable(standard_error: float, *, alpha: float = 0.05, power: float = 0.8) -> float:
    """Smallest true difference that a comparison with this standard error finds with the stated power."""
    return (_NORMAL.inv_cdf(1 - alpha / 2) + _NORMAL.inv_cdf(power)) * standard_error


def design_effect(differences: F64, statistic: Clustered) -> float:
    """Variance of the clustered mean over that of independent items, at least 1. differences: [n]."""
    n, clusters = statistic.n, statistic.clusters
    variance = float(np.var(differences, ddof=1)) if n > 1 else 0.0
    if variance == 0 or clusters < 2:
        return 1.0
    residual = statistic.sums - statistic.mean * statistic.counts
    clustered = float((residual**2).sum()) / n**2 * clusters / (clusters - 1)
    return max(1.0, clustered / (variance / n))
