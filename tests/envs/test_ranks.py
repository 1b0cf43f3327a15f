"""Rank statistics agree with SciPy's, ties included."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from envs.ranks import auroc, midranks, spearman

VALUES = st.lists(st.integers(0, 6), min_size=2, max_size=12)


@given(VALUES)
def test_midranks_are_scipys(values: list[int]) -> None:
    assert midranks(values).tolist() == stats.rankdata(values).tolist()


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=2, max_size=12))
def test_rank_correlation_is_scipys_and_undefined_where_a_side_is_constant(pairs: list[tuple[int, int]]) -> None:
    a, b = (list(side) for side in zip(*pairs, strict=True))
    if len(set(a)) == 1 or len(set(b)) == 1:
        assert spearman(a, b) is None
    else:
        assert spearman(a, b) == pytest.approx(stats.spearmanr(a, b).statistic)


@given(VALUES, VALUES)
def test_auroc_is_the_mann_whitney_share_with_ties_counted_half(higher: list[int], lower: list[int]) -> None:
    share = np.mean([(a > b) + (a == b) / 2 for a in higher for b in lower])
    assert auroc(higher, lower) == pytest.approx(share)


def test_nothing_to_rank_is_a_callers_error() -> None:
    with pytest.raises(ValueError, match="0 and 1 values"):
        auroc([], [1.0])
    with pytest.raises(ValueError, match="make no pairs"):
        spearman([1.0], [1.0, 2.0])
