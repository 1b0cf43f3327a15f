"""Packed bins from shards to micro-batches of one replica.

Opening reads index files only; tokens are memory-mapped. What is read at a step depends on (seed, step) alone, so
the data cursor of a checkpoint is its step. Every rank of a replica reads the same bins.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import ConfigError, DataError
from data_tools.packed import PackedShard
from megatron_osim.batch import PackedBatch
from megatron_osim.config import DataConfig, SourceConfig
from megatron_osim.mixture import Mixture, make_mixture


@dataclass(frozen=True)
class PackedSource:
    """All shards of one source as one sequence of bins."""

    name: str
    shards: tuple[PackedShard, ...]
    ends: tuple[int, ...]
    """Bins up to and including each shard."""
    codes: tuple[np.ndarray, ...] | None = None
    """Per shard: source code of the shard -> index of the run's data sources (`TrainingData.data_sources`)."""

    @classmethod
    def open(cls, config: SourceConfig, *, sequence_length: int, vocab_size: int) -> PackedSource:
        """Raises DataError for a shard that is damaged, empty, packed too long or of a larger vocabulary."""
        shards = tuple(PackedShard.open(prefix, sequence_length=sequence_length) for prefix in config.prefixes)
        for shard, prefix in zip(shards, config.prefixes, strict=True):
            _check(shard, prefix, vocab_size)
        return cls(config.name, shards, tuple(accumulate(s.num_bins for s in shards)))

    @property
    def num_bins(self) -> int:
        """Bins of all shards."""
        return self.ends[-1]

    def locate(self, index: int) -> tuple[PackedShard, int]:
        """The shard of a bin, and the bin's number there."""
        which = bisect_right(self.ends, index)
        return self.shards[which], index - (self.ends[which] - self.shards[which].num_bins)

    def batch(self, index: int) -> PackedBatch:
        """One bin; values["weight"] is 1 where the label is a training target, values["source"] the data source."""
        which = bisect_right(self.ends, index)
        packed = self.shards[which].bin(index - (self.ends[which] - self.shards[which].num_bins))
        cuts = np.cumsum(packed.segment_lengths)[:-1]
        values = {"weight": np.split(packed.train.astype(np.float32), cuts)}
        if self.codes is not None:
            sources = self.codes[which][packed.source_ids].astype(np.float32)
            values["source"] = [
                np.full(n, s, np.float32) for n, s in zip(packed.segment_lengths, sources, strict=True)
            ]
        return PackedBatch.from_sequences(np.split(packed.token_ids, cuts), values)

    def numbered(self, names: Sequence[str]) -> PackedSource:
        """The same source, whose batches tell data sources by their index in `names`."""
        index = {name: i for i, name in enumerate(names)}
        codes = tuple(np.array([index[name] for name in shard.manifest.sources]) for shard in self.shards)
        return replace(self, codes=codes)


def _check(shard: PackedShard, prefix: Path, vocab_size: int) -> None:
    if shard.num_bins == 0:
        raise DataError("the shard has no packed documents", where=str(prefix), fix="run `osim data pack` again")
    known = shard.manifest.tokenizer.vocab_size
    if known > vocab_size:
        raise DataError(
            f"tokenized with a vocabulary of {known}, the model has {vocab_size}",
            where=str(prefix),
            fix="use the tokenizer of the model that you train",
        )


class TrainingData:
    """The training mixture of one run, as seen by one replica."""

    def __init__(self, config: DataConfig, *, global_batch: int, seed: int, vocab_size: int) -> None:
        opened = _open_all(config.sources, config, vocab_size)
        self.data_sources = sorted({n for s in opened for shard in s.shards for n in shard.manifest.sources})
        self.sources = [source.numbered(self.data_sources) for source in opened]
        weights = [s.weight for s in config.sources if s.weight is not None]
        self.mixture: Mixture = make_mixture([s.num_bins for s in self.sources], weights or None, seed)
        self.global_batch = global_batch

    def step(self, step: int, *, replica: int = 0, replicas: int = 1) -> list[PackedBatch]:
        """Micro-batches (one bin each) of this replica at `step`; together the replicas read global_batch bins."""
        draws = (self.mixture.draw(n) for n in self._positions(step, replica, replicas))
        return [self.sources[d.source].batch(d.bin) for d in draws]

    def _positions(self, step: int, replica: int, replicas: int) -> range:
        return range(step * self.global_batch + replica, (step + 1) * self.global_batch, replicas)

    def describe(self, step: int) -> list[dict[str, Any]]:
        """What the global batch of `step` holds, to name the culprit of an anomaly."""
        out = []
        for n in self._positions(step, 0, 1):
            draw = self.mixture.draw(n)
            shard, local = self.sources[draw.source].locate(draw.bin)
            names = [shard.manifest.sources[int(i)] for i in np.unique(shard.bin(local).source_ids)]
            out.append(
                {
                    "source": self.sources[draw.source].name,
                    "shard": str(shard.shard.prefix),
                    "bin": local,
                    "data_sources": names,
                }
            )
        return out

    def position(self, step: int) -> dict[str, Any]:
        """Data position after `step` steps, for metrics and checkpoints."""
        draws = step * self.global_batch
        epochs = self.mixture.epochs(draws)
        return {"bins": draws, "epochs": {s.name: round(e, 6) for s, e in zip(self.sources, epochs, strict=True)}}


class ValidationData:
    """A fixed sample of each validation source: its first bins."""

    def __init__(self, config: DataConfig, *, max_bins: int, vocab_size: int) -> None:
        self.sources = _open_all(config.validation, config, vocab_size)
        self.max_bins = max_bins

    def batches(
        self, source: PackedSource, *, replica: int, replicas: int, multiple_of: int = 1
    ) -> list[PackedBatch]:
        """This replica's share, filled up with weightless bins so that every replica has as many."""
        bins = min(self.max_bins, source.num_bins)
        per_replica = -(-bins // (replicas * multiple_of)) * multiple_of
        own = [source.batch(i) for i in range(replica, bins, replicas)]
        return own + [weightless_batch() for _ in range(per_replica - len(own))]


def weightless_batch() -> PackedBatch:
    """A micro-batch that counts for nothing."""
    return PackedBatch.from_sequences([[0, 0]], {"weight": [[0.0, 0.0]]})


def _open_all(sources: Sequence[SourceConfig], config: DataConfig, vocab_size: int) -> list[PackedSource]:
    """Open every source; all that is wrong is reported at once."""
    opened, problems = [], []
    for source in sources:
        try:
            opened.append(PackedSource.open(source, sequence_length=config.sequence_length, vocab_size=vocab_size))
        except DataError as e:
            problems.append(f"source {source.name}: {e}")
    if problems:
        raise ConfigError(problems, where="data")
    return opened
