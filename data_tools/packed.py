"""Packed training sequences of a shard, as the trainer reads them. Opening touches index files only."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common.errors import DataError
from data_tools.assemble import TRAIN_BIT
from data_tools.indexed import add_suffix
from data_tools.manifest import Manifest
from data_tools.packing import Packing
from data_tools.shards import Shard, read_pack


@dataclass(frozen=True)
class PackedBin:
    """One training sequence of whole documents, unpadded: T <= sequence_length tokens, k documents."""

    token_ids: NDArray[np.int32]
    """int32[T]"""
    train: NDArray[np.bool_]
    """bool[T]: this token is a target (shift once for next-token labels)."""
    segment_lengths: NDArray[np.int32]
    """int32[k], sums to T; positions restart and attention is cut at each."""
    source_ids: NDArray[np.uint16]
    """uint16[k], index into manifest.sources."""


@dataclass(frozen=True)
class PackedShard:
    """A shard and one packing of it."""

    shard: Shard
    packing: Packing

    @classmethod
    def open(cls, prefix: Path, *, sequence_length: int | None = None) -> PackedShard:
        """Open PREFIX. Raises DataError when it is damaged, not packed, or packed to more than `sequence_length`."""
        shard = Shard.open(prefix)
        path = add_suffix(prefix, ".pack")
        packing = read_pack(path, shard.tokens.lengths)
        if sequence_length is not None and packing.capacity > sequence_length:
            raise DataError(
                f"packed to {packing.capacity} tokens, more than the sequence length {sequence_length}",
                where=str(path),
                fix=f"run `osim data pack {prefix} --sequence-length {sequence_length}`",
            )
        return cls(shard, packing)

    @property
    def manifest(self) -> Manifest:
        return self.shard.manifest

    @property
    def sequence_length(self) -> int:
        return self.packing.capacity

    @property
    def num_bins(self) -> int:
        return self.packing.num_bins

    def bin(self, i: int) -> PackedBin:
        """Training sequence i."""
        documents = self.packing.documents[self.packing.offsets[i] : self.packing.offsets[i + 1]]
        if not 0 < (length := int(self.shard.tokens.lengths[documents].sum(dtype=np.int64))) <= self.sequence_length:
            raise DataError(
                f"bin {i} holds {length} tokens, its sequences have 1 to {self.sequence_length}",
                where=str(add_suffix(self.shard.prefix, ".pack")),
                fix="run `osim data pack` again",
            )
        masks = np.concatenate([self.shard.mask[d] for d in documents])
        return PackedBin(
            np.concatenate([self.shard.tokens[d] for d in documents]).astype(np.int32, copy=False),
            (masks & TRAIN_BIT).astype(bool),
            np.asarray(self.shard.tokens.lengths[documents]),
            np.asarray(self.shard.sources[documents]),
        )
