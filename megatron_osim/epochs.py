"""How many steps an epoch has. Reads index files only and imports no torch."""

from __future__ import annotations

import math

from data_tools.packed import PackedShard
from megatron_osim.config import MidtrainConfig


def with_steps(config: MidtrainConfig) -> MidtrainConfig:
    """The same run with `steps` in place of `epochs`. Raises DataError for a damaged shard."""
    if config.epochs is None:
        return config
    length = config.data.sequence_length
    prefixes = [prefix for source in config.data.sources for prefix in source.prefixes]
    bins = sum(PackedShard.open(prefix, sequence_length=length).num_bins for prefix in prefixes)
    steps = math.ceil(bins * config.epochs / config.global_batch)
    return config.model_copy(update={"steps": max(1, steps), "epochs": None})
