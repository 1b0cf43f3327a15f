"""tau-bench's pass^k (sierra-research/tau-bench @59a200c): will k independent tries all succeed? Pure."""

from __future__ import annotations

import math


def pass_hat_k(tries: int, successes: int, k: int) -> float:
    """Unbiased estimate C(successes, k) / C(tries, k) from `tries` ≥ k tries."""
    if not 0 < k <= tries or not 0 <= successes <= tries:
        raise ValueError(f"need 0 < k <= tries and 0 <= successes <= tries: {k=}, {tries=}, {successes=}")
    return math.comb(successes, k) / math.comb(tries, k)
