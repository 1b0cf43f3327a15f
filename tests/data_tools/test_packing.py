"""Packing: nothing is lost, cut or too much; full bins, bounded segments, mixed lengths."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import DataError
from data_tools.packing import pack
from data_tools.verify import bin_tokens


@given(
    st.lists(st.integers(1, 100), max_size=200),
    st.integers(100, 300),
    st.integers(1, 64),
    st.integers(1, 50),
    st.integers(0, 3),
)
@settings(max_examples=150, deadline=None)
def test_every_document_is_in_exactly_one_bin_that_holds_it(lengths, capacity, window, max_segments, seed):
    lengths = np.array(lengths, np.int32)
    packing = pack(lengths, capacity, seed, window=window, max_segments=max_segments)
    assert sorted(packing.documents.tolist()) == list(range(len(lengths)))
    segments = np.diff(packing.offsets)
    assert segments.min(initial=1) >= 1 and segments.max(initial=0) <= max_segments
    assert bin_tokens(packing, lengths).max(initial=0) <= capacity
    again = pack(lengths, capacity, seed, window=window, max_segments=max_segments)
    assert np.array_equal(again.documents, packing.documents) and np.array_equal(again.offsets, packing.offsets)


def test_chat_lengths_fill_bins_with_mixed_lengths_and_few_segments():
    rng = np.random.default_rng(0)
    capacity = 24_576
    lengths = np.clip(np.exp(rng.normal(5.7, 0.95, 300_000)), 8, capacity).astype(np.int32)
    packing = pack(lengths, capacity, seed=1)
    segments = np.diff(packing.offsets)
    assert lengths.sum() / (packing.num_bins * capacity) > 0.999
    assert segments.max() <= 256 and np.percentile(segments, 99) < 100
    # Mixed: the mean document of most bins is close to the mean of all.
    means = bin_tokens(packing, lengths) / segments
    assert np.percentile(means, 10) > 0.5 * lengths.mean() and np.percentile(means, 90) < 2 * lengths.mean()


@given(st.lists(st.integers(1, 100), max_size=200), st.integers(0, 3))
@settings(max_examples=50, deadline=None)
def test_short_documents_share_their_bins_however_few_they_are(lengths, seed):
    packing = pack(np.array(lengths, np.int32), 1024, seed)
    assert packing.num_bins <= sum(lengths) // 924 + 1


def test_bins_in_order_are_not_sorted_by_length():
    lengths = np.random.default_rng(0).integers(10, 1000, 20_000).astype(np.int32)
    packing = pack(lengths, 4096, seed=0)
    longest = np.maximum.reduceat(lengths[packing.documents], packing.offsets[:-1])
    assert abs(np.corrcoef(np.arange(packing.num_bins), longest)[0, 1]) < 0.1


def test_another_seed_packs_otherwise():
    lengths = np.full(100, 10, np.int32)
    assert not np.array_equal(pack(lengths, 50, 0).documents, pack(lengths, 50, 1).documents)


def test_documents_that_do_not_fit_are_an_error():
    with pytest.raises(DataError, match="1 of 2 documents do not fit into 10 tokens"):
        pack(np.array([5, 11], np.int32), 10, 0)
    with pytest.raises(DataError, match="no tokens"):
        pack(np.array([5, 0], np.int32), 10, 0)


def test_no_documents_make_no_bins():
    assert pack(np.zeros(0, np.int32), 10, 0).num_bins == 0
