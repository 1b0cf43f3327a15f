"""Short texts joined by a separator for the tokenizer, and its ids cut again. Compiled loops over flat arrays."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

SEPARATOR = "\x1f"
"""The unit separator of ASCII. A text that holds it is not joined."""
PIECE_BYTES = 64 << 10
"""Joined text that is given to the tokenizer as one: ids of it stay in the processor's cache."""
_SEPARATOR = ord(SEPARATOR)


def join_texts(
    data: NDArray[np.uint8], offsets: NDArray[np.int64]
) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.bool_]]:
    """The ASCII texts between `offsets`, a separator after each: (uint8[bytes], ends of pieces, who is alone).

    ends: int64[P], whole texts of about PIECE_BYTES. alone: bool[N], the text is not in there.
    """
    size = int(offsets[-1] - offsets[0]) + len(offsets) - 1
    joined, alone = np.empty(size, np.uint8), np.empty(len(offsets) - 1, np.bool_)
    ends = np.empty(size // PIECE_BYTES + 1, np.int64)
    pieces = _join(data, offsets, joined, ends, alone)
    return joined, ends[:pieces], alone


def cut_ids(
    joined_ids: NDArray[np.uint32],
    separator_id: int,
    other_ids: NDArray[np.uint32],
    other_offsets: NDArray[np.int64],
    alone: NDArray[np.bool_],
) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """Ids of all texts in their order, and offsets: those of joined ones without separators, and of those alone."""
    ends = np.flatnonzero(joined_ids == separator_id)
    ids, offsets = (
        np.empty(len(joined_ids) - len(ends) + len(other_ids), np.uint32),
        np.empty(len(alone) + 1, np.int64),
    )
    _cut(joined_ids, ends, other_ids, other_offsets, alone, ids, offsets)
    return ids, offsets


@njit(cache=True)
def _join(data, offsets, joined, ends, alone):
    """Fill `joined`, `ends` and `alone`; the number of ends."""
    out = pieces = last = 0
    for m in range(len(alone)):
        text = data[offsets[m] : offsets[m + 1]]
        target = joined[out : out + len(text)]
        high, separators = np.uint8(0), np.uint8(0)
        for i in range(len(text)):
            byte = text[i]
            target[i] = byte
            high |= byte
            separators |= np.uint8(byte == _SEPARATOR)
        alone[m] = high >= 128 or separators > 0
        if not alone[m]:
            out += len(text)
            joined[out] = _SEPARATOR
            out += 1
            if out - last >= PIECE_BYTES:
                ends[pieces] = last = out
                pieces += 1
    if out > last:
        ends[pieces] = out
        pieces += 1
    return pieces


@njit(cache=True)
def _cut(joined_ids, ends, other_ids, other_offsets, alone, ids, offsets):
    at = out = others = joined = 0
    offsets[0] = 0
    for m in range(len(alone)):
        if alone[m]:
            source = other_ids[other_offsets[others] : other_offsets[others + 1]]
            others += 1
        else:
            source = joined_ids[at : ends[joined]]
            at = ends[joined] + 1
            joined += 1
        target = ids[out : out + len(source)]
        for i in range(len(source)):
            target[i] = source[i]
        out += len(source)
        offsets[m + 1] = out
