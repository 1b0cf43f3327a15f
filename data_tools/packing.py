"""Packing documents into fixed-capacity bins, in seeded windows. No document is cut.

All documents are shuffled and cut into windows (100 000 by default). A window is packed longest document first:

1. long documents (over an eighth of the capacity) by best fit, opening bins as they need them;
2. the others into the emptiest of all the bins that the window's tokens will fill, so that every bin gets a
   similar mix of lengths and a similar number of segments;
3. the shortest tenth by best fit again, which fills the gaps that are left to the last token.

What fits nowhere goes to the next window. Plain best-fit decreasing fills as well but sorts: it ends with bins of
thousands of tiny documents. Constant time per document: a bitmap over residual capacities with a second bitmap over
its words finds the best fit, and until a bin is opened the emptiest only ever gets fuller.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from common.errors import DataError
from common.seeds import derive_seed

WINDOW = 100_000
MAX_SEGMENTS = 256
LONG_SHARE = 8
"""A document is long when it takes more than 1/LONG_SHARE of a bin."""
FILL_SHARE = 0.1
"""Share of a window's tokens, in its shortest documents, kept to fill the gaps."""


@dataclass(frozen=True)
class Packing:
    """Bins as compressed rows: bin i holds documents `documents[offsets[i]:offsets[i+1]]`."""

    capacity: int
    offsets: NDArray[np.int64]
    """int64[num_bins + 1]"""
    documents: NDArray[np.uint32]
    """uint32[number of packed documents]"""

    @property
    def num_bins(self) -> int:
        return len(self.offsets) - 1


def pack(
    lengths: NDArray[np.int32], capacity: int, seed: int, *, window: int = WINDOW, max_segments: int = MAX_SEGMENTS
) -> Packing:
    """Pack documents of `lengths` (tokens, each in 1..capacity) into bins of `capacity` tokens.

    At most `max_segments` documents share a bin. Deterministic in (lengths, capacity, seed, window, max_segments).
    """
    _check(lengths, capacity)
    rng = np.random.Generator(np.random.PCG64(derive_seed(seed, "pack")))
    order = np.arange(len(lengths), dtype=np.uint32)
    rng.shuffle(order)
    counts: list[NDArray[np.int64]] = []
    documents = np.empty(len(lengths), np.uint32)
    packed = 0
    carried = order[:0]
    for start in range(0, len(order), window):
        part = np.concatenate([carried, order[start : start + window]])
        # Equal lengths keep their shuffled order: the sort must be stable.
        part = part[np.argsort(-lengths[part], kind="stable")]
        last = start + window >= len(order)
        bin_of, num_bins = _pack_window(lengths[part], capacity, max_segments, last)
        carried = part[bin_of < 0]
        part, bin_of = part[bin_of >= 0], bin_of[bin_of >= 0]
        # Bins come out longest document first; a seeded order makes reading them in sequence fair.
        bin_of = rng.permutation(num_bins).astype(np.int32)[bin_of]
        documents[packed : packed + len(part)] = part[np.argsort(bin_of, kind="stable")]
        packed += len(part)
        counts.append(np.bincount(bin_of, minlength=num_bins))
    offsets = np.zeros(1 + sum(map(len, counts)), np.int64)
    if counts:
        np.cumsum(np.concatenate(counts), out=offsets[1:])
    return Packing(capacity, offsets, documents)


def _check(lengths: NDArray[np.int32], capacity: int) -> None:
    if len(lengths) and int(lengths.min()) < 1:
        raise DataError("a document has no tokens", fix="prepare the shard again")
    too_long = int((lengths > capacity).sum())
    if too_long:
        raise DataError(
            f"{too_long} of {len(lengths)} documents do not fit into {capacity} tokens",
            fix=f"pack to {int(lengths.max())} tokens, or prepare with sequence_length={capacity} and on_long",
        )


@njit(cache=True)
def _pack_window(
    lengths: NDArray[np.int32], capacity: int, max_segments: int, last: bool
) -> tuple[NDArray[np.int32], int]:
    """Bin of each document (lengths in decreasing order), -1 for the next window, and the number of bins.

    The last window opens bins for what fits nowhere instead.
    """
    count = len(lengths)
    words = np.zeros((capacity >> 6) + 2, np.uint64)
    summary = np.zeros((len(words) >> 6) + 1, np.uint64)
    first_bin = np.full(capacity + 1, -1, np.int32)  # bins by residual capacity, linked
    next_bin = np.empty(count, np.int32)
    segments = np.zeros(count, np.int32)
    bin_of = np.full(count, -1, np.int32)
    num_bins = 0

    total = np.int64(0)
    for i in range(count):
        total += lengths[i]
    num_long = 0
    while num_long < count and lengths[num_long] * LONG_SHARE > capacity:
        num_long += 1
    fill_from, tail = count, np.int64(0)
    while fill_from > num_long and tail + lengths[fill_from - 1] <= total * FILL_SHARE:
        fill_from -= 1
        tail += lengths[fill_from]

    top = capacity
    for i in range(count):
        length = lengths[i]
        if i == num_long:
            while (num_bins + 1) * capacity <= total and num_bins < count:
                _put(words, summary, first_bin, next_bin, num_bins, capacity)
                num_bins += 1
        if num_long <= i < fill_from:
            while top > 0 and first_bin[top] < 0:
                top -= 1
            residual = top if top >= length else -1
        else:
            residual = _next_set(words, summary, length)
        if residual >= 0:
            chosen = _take(words, summary, first_bin, next_bin, residual)
        elif last or i < num_long:
            chosen, residual = num_bins, capacity
            num_bins += 1
            top = capacity
        else:
            continue
        bin_of[i] = chosen
        segments[chosen] += 1
        if residual > length and segments[chosen] < max_segments:
            _put(words, summary, first_bin, next_bin, chosen, residual - length)
    return bin_of, num_bins


@njit(cache=True)
def _put(
    words: NDArray[np.uint64],
    summary: NDArray[np.uint64],
    first_bin: NDArray[np.int32],
    next_bin: NDArray[np.int32],
    which: int,
    residual: int,
) -> None:
    """Register a bin under its residual capacity."""
    words[residual >> 6] |= np.uint64(1) << np.uint64(residual & 63)
    summary[residual >> 12] |= np.uint64(1) << np.uint64((residual >> 6) & 63)
    next_bin[which] = first_bin[residual]
    first_bin[residual] = which


@njit(cache=True)
def _take(
    words: NDArray[np.uint64],
    summary: NDArray[np.uint64],
    first_bin: NDArray[np.int32],
    next_bin: NDArray[np.int32],
    residual: int,
) -> int:
    """Remove and return a bin with exactly this residual capacity."""
    which = first_bin[residual]
    first_bin[residual] = next_bin[which]
    if first_bin[residual] < 0:
        words[residual >> 6] &= ~(np.uint64(1) << np.uint64(residual & 63))
        if words[residual >> 6] == 0:
            summary[residual >> 12] &= ~(np.uint64(1) << np.uint64((residual >> 6) & 63))
    return which


@njit(cache=True)
def _next_set(words: NDArray[np.uint64], summary: NDArray[np.uint64], start: int) -> int:
    """The lowest set position >= start in the two-level bitmap, or -1."""
    ones = np.uint64(0xFFFFFFFFFFFFFFFF)
    word = start >> 6
    masked = words[word] & (ones << np.uint64(start & 63))
    if masked != 0:
        return (word << 6) + _lowest_bit(masked)
    word += 1
    block = word >> 6
    if block == len(summary):
        return -1
    masked = summary[block] & (ones << np.uint64(word & 63))
    while masked == 0:
        block += 1
        if block == len(summary):
            return -1
        masked = summary[block]
    word = (block << 6) + _lowest_bit(masked)
    return (word << 6) + _lowest_bit(words[word])


@njit(cache=True)
def _lowest_bit(word: np.uint64) -> int:
    """Position of the lowest set bit of a non-zero word, by halving."""
    position = 0
    for step in (32, 16, 8, 4, 2, 1):
        if word & ((np.uint64(1) << np.uint64(step)) - np.uint64(1)) == 0:
            word = word >> np.uint64(step)
            position += step
    return position
