"""Short texts joined by a separator for the tokenizer, and where its ids are among those of all. Flat arrays."""

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


def find_texts(
    separators: NDArray[np.int64], other_offsets: NDArray[np.int64], alone: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where the ids of each text begin and end.

    separators: int64[joined texts], where theirs are. other_offsets: int64[texts alone + 1], where the others begin.
    """
    starts = np.concatenate([[0], separators + 1])[:-1]
    if len(separators) == len(alone):
        return starts, separators
    all_starts, all_stops = np.empty(len(alone), np.int64), np.empty(len(alone), np.int64)
    all_starts[~alone], all_stops[~alone] = starts, separators
    all_starts[alone], all_stops[alone] = other_offsets[:-1], other_offsets[1:]
    return all_starts, all_stops


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
