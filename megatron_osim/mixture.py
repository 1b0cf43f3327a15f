"""Which bin is read at which position of the run: a pure function of (seed, position), in constant memory.

The run is a sequence of draws 0, 1, 2, ... Draws are grouped into blocks in which every source has an exact quota,
in an order that a keyed permutation of the block gives; each source's bins are taken in the order of a keyed
permutation of its own epoch. So any draw of any step can be computed alone: resuming, changing the number of
replicas or skipping ahead needs no state.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from common.seeds import derive_seed

WEIGHTED_BLOCK = 10_000
"""Draws within which given weights are met exactly (rounded to this)."""
_MASK = (1 << 64) - 1


@dataclass(frozen=True)
class Draw:
    """One bin of one source."""

    source: int
    bin: int
    epoch: int
    """How often this source has been seen whole before this draw."""


@dataclass(frozen=True)
class Mixture:
    """Sources with their sizes and quotas. Built by `make_mixture`."""

    sizes: tuple[int, ...]
    """Bins of each source."""
    quotas: tuple[int, ...]
    """Draws of each source per block."""
    seed: int

    @property
    def block(self) -> int:
        """Draws of one block; without weights, one epoch over everything."""
        return sum(self.quotas)

    def draw(self, n: int) -> Draw:
        """The n-th bin of the run."""
        block, position = divmod(n, self.block)
        slot = permute(position, self.block, derive_seed(self.seed, "mixture", block))
        ends = list(accumulate(self.quotas))
        source = bisect_right(ends, slot)
        count = block * self.quotas[source] + slot - (ends[source] - self.quotas[source])
        epoch, index = divmod(count, self.sizes[source])
        key = derive_seed(self.seed, "epoch", source, epoch)
        return Draw(source, permute(index, self.sizes[source], key), epoch)

    def epochs(self, draws: int) -> tuple[float, ...]:
        """How often each source has been read after `draws` draws (whole blocks are exact)."""
        return tuple(draws / self.block * q / n for q, n in zip(self.quotas, self.sizes, strict=True))


def make_mixture(sizes: Sequence[int], weights: Sequence[float] | None, seed: int) -> Mixture:
    """Without weights every bin of every source is read once per block; with them, in those shares."""
    if weights is None:
        return Mixture(tuple(sizes), tuple(sizes), seed)
    total = sum(weights)
    exact = [w / total * WEIGHTED_BLOCK for w in weights]
    quotas = [int(e) for e in exact]
    # Largest remainders first, so that the quotas add up.
    by_remainder = sorted(range(len(exact)), key=lambda i: quotas[i] - exact[i])
    for i in by_remainder[: WEIGHTED_BLOCK - sum(quotas)]:
        quotas[i] += 1
    return Mixture(tuple(sizes), tuple(quotas), seed)


def permute(index: int, size: int, key: int) -> int:
    """A keyed permutation of range(size): four Feistel rounds, walking back into the range."""
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    low = (1 << half) - 1
    while True:
        left, right = index >> half, index & low
        for round_ in range(4):
            left, right = right, left ^ (_mix(right ^ key ^ (round_ << 56)) & low)
        index = left << half | right
        if index < size:
            return index


def _mix(x: int) -> int:
    """splitmix64's finaliser."""
    x = (x + 0x9E3779B97F4A7C15) & _MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
    return x ^ (x >> 31)
