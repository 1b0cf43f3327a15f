"""Order statistics by rank: shared by detectors, tasks and eval. Pure; numpy only.

Runs in any process; empty input is a ValueError (a caller's bug, never a state of a run).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]
Values = Sequence[float] | F64


def midranks(values: Values) -> F64:
    """Ranks from 1, float64[n]; equal values share the mean of theirs."""
    _, inverse, counts = np.unique(np.asarray(values, np.float64), return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return np.asarray(((ends - counts + 1 + ends) / 2)[inverse], np.float64)


def spearman(a: Values, b: Values) -> float | None:
    """Rank correlation of pairs; None when one side does not vary."""
    if len(a) != len(b) or not len(a):
        raise ValueError(f"{len(a)} and {len(b)} values make no pairs")
    left, right = midranks(a), midranks(b)
    if np.ptp(left) == 0 or np.ptp(right) == 0:
        return None
    return float(np.corrcoef(left, right)[0, 1])


def auroc(higher: Values, lower: Values) -> float:
    """Chance that one of `higher` is above one of `lower`; ties count half (Mann-Whitney)."""
    n, m = len(higher), len(lower)
    if not n or not m:
        raise ValueError(f"{n} and {m} values cannot be told apart")
    above = midranks(np.concatenate([higher, lower]))[:n].sum() - n * (n + 1) / 2
    return float(above / (n * m))
