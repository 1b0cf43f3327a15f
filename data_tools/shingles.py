"""Words, word n-grams and MinHash signatures of text, as integers.

Texts are compared as lower-case words: punctuation, spacing and tokenization do not hide an overlap. Hashes are fixed
(no per-process seed), so results can be compared between machines.
"""

from __future__ import annotations

import re

import numpy as np
from numba import njit
from numpy.typing import NDArray

_WORD = re.compile(r"\w+")
_FNV_OFFSET, _FNV_PRIME = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)
_MIX_1, _MIX_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
NUM_PERMUTATIONS = 128
SHINGLE_WORDS = 5
BAND_ROWS = 8


def words(text: str) -> list[str]:
    """Lower-case words of a text."""
    return _WORD.findall(text.lower())


def word_hashes(text: str) -> NDArray[np.uint64]:
    """One 64-bit hash per word, uint64[W]."""
    found = words(text)
    return _hash_words(np.frombuffer(" ".join(found).encode() + b" ", np.uint8), len(found))


def ngram_hashes(hashes: NDArray[np.uint64], n: int) -> NDArray[np.uint64]:
    """One hash per window of n words, uint64[W - n + 1] (empty when there are fewer words)."""
    if len(hashes) < n:
        return hashes[:0]
    return _hash_windows(hashes, n)


def signature(text: str) -> NDArray[np.uint32]:
    """MinHash of the text's 5-word shingles, uint32[128]; two texts agree in about their Jaccard share of places."""
    hashes = word_hashes(text)
    return _min_hash(ngram_hashes(hashes, min(SHINGLE_WORDS, max(1, len(hashes)))), NUM_PERMUTATIONS)


def band_keys(signatures: NDArray[np.uint32]) -> NDArray[np.uint64]:
    """One key per band of 8 places, uint64[N, 16]: texts that agree in a whole band have an equal key there.

    At similarity 0.8, 95 % of pairs share a band; at 0.5, 6 %.
    """
    bands = signatures.reshape(len(signatures), -1, BAND_ROWS).astype(np.uint64)
    keys = np.zeros(bands.shape[:2], np.uint64)
    for place in range(BAND_ROWS):
        keys = keys * _GOLDEN + bands[:, :, place]
    return keys


@njit(cache=True)
def _mix(x: np.uint64) -> np.uint64:
    """The finalizer of splitmix64."""
    x = (x ^ (x >> np.uint64(30))) * _MIX_1
    x = (x ^ (x >> np.uint64(27))) * _MIX_2
    return x ^ (x >> np.uint64(31))


@njit(cache=True)
def _hash_words(text: NDArray[np.uint8], count: int) -> NDArray[np.uint64]:
    """FNV-1a of each word of a text in which every word ends with one space."""
    out = np.empty(count, np.uint64)
    state, at = _FNV_OFFSET, 0
    for byte in text:
        if byte == 32:
            if at < count:
                out[at] = _mix(state)
            at += 1
            state = _FNV_OFFSET
        else:
            state = (state ^ np.uint64(byte)) * _FNV_PRIME
    return out


@njit(cache=True)
def _hash_windows(hashes: NDArray[np.uint64], n: int) -> NDArray[np.uint64]:
    """Polynomial rolling hash of n word hashes, mixed."""
    out = np.empty(len(hashes) - n + 1, np.uint64)
    highest = np.uint64(1)
    for _ in range(n - 1):
        highest *= _GOLDEN
    state = np.uint64(0)
    for i in range(len(hashes)):
        if i >= n:
            state -= hashes[i - n] * highest
        state = state * _GOLDEN + hashes[i]
        if i >= n - 1:
            out[i - n + 1] = _mix(state)
    return out


@njit(cache=True)
def _min_hash(shingles: NDArray[np.uint64], permutations: int) -> NDArray[np.uint32]:
    """Minimum over the shingles of `permutations` independent mixes, upper 32 bits."""
    out = np.full(permutations, 0xFFFFFFFF, np.uint32)
    for shingle in shingles:
        state = shingle
        for p in range(permutations):
            state += _GOLDEN
            value = np.uint32(_mix(state) >> np.uint64(32))
            if value < out[p]:
                out[p] = value
    return out
