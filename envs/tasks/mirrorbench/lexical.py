"""MirrorBench's lexical measures (SAP/mirrorbench @2d4b802, `metrics/lexical`), over any token ids. Pure.

They say how diverse a text is, not how good: the target is the human value (a z-score of 0), never "higher". On
at most `window` tokens MATTR is the plain type/token ratio, close to 1 for any short text.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from statistics import NormalDist

MATTR_WINDOW = 50
HDD_SAMPLE = 42
T_975 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
"""0.975 quantiles of Student's t for 1 to 30 degrees of freedom, to three places as the authors use them."""
Z_975 = NormalDist().inv_cdf(0.975)
MIN_SPREAD = 1e-6


def mattr(tokens: Sequence[Hashable], window: int = MATTR_WINDOW) -> float:
    """Mean type/token ratio of all windows."""
    n = len(tokens)
    if n <= window:
        return len(set(tokens)) / n if n else 0.0
    counts = Counter(tokens[:window])
    types = total = len(counts)
    for old, new in zip(tokens, tokens[window:], strict=False):
        counts[new] += 1
        types += counts[new] == 1
        counts[old] -= 1
        types -= counts[old] == 0
        total += types
    return total / (n - window + 1) / window


def hdd(tokens: Sequence[Hashable], sample: int = HDD_SAMPLE) -> float:
    """Expected type/token ratio of a random sample of `sample` tokens (hypergeometric)."""
    n = len(tokens)
    if n == 0:
        return 0.0
    sample = min(sample, n)
    draws, words_by_count = math.comb(n, sample), Counter(Counter(tokens).values())
    return sum(w * (1 - math.comb(n - count, sample) / draws) for count, w in words_by_count.items()) / sample


def yules_k(tokens: Sequence[Hashable]) -> float:
    """10,000 · (Σ count² − n) / n²: 0 when nothing is repeated."""
    n = len(tokens)
    if n == 0:
        return 0.0
    return 1e4 * (sum(count * count for count in Counter(tokens).values()) - n) / (n * n)


def calibrate(score: float, human_human: float, proxy_proxy: float) -> float:
    """A judge's score between its score for a proxy against itself (0) and for a human against a human (1)."""
    return min(1.0, max(0.0, (score - proxy_proxy) / max(MIN_SPREAD, human_human - proxy_proxy)))


def mean_sd_half_width(scores: Sequence[float]) -> tuple[float, float, float]:
    """Mean, standard deviation (n − 1) and half of the 95 % interval (Student's t up to 31 values, else normal)."""
    n = len(scores)
    if n == 0:
        return 0.0, 0.0, 0.0
    mean = sum(scores) / n
    if n == 1:
        return mean, 0.0, 0.0
    sd = math.sqrt(sum((s - mean) ** 2 for s in scores) / (n - 1))
    quantile = T_975[n - 2] if n - 1 <= len(T_975) else Z_975
    return mean, sd, quantile * sd / math.sqrt(n)
