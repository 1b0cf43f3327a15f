"""Small models and seeded packed batches that the tests of this folder share."""

from __future__ import annotations

import numpy as np

from megatron_osim.batch import PackedBatch
from megatron_osim.config import ArchitectureConfig, OptimizerConfig, ParallelConfig
from megatron_osim.convert import load_random
from megatron_osim.model import build_model
from megatron_osim.runtime import Ranks
from megatron_osim.trainer import Trainer, build_trainer

VOCAB = 300  # not a multiple of 128: the padding of the vocabulary is always in play


def tiny(**changes: object) -> ArchitectureConfig:
    """Qwen3 with grouped queries."""
    base = {
        "vocab_size": VOCAB,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 4,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 16,
        "max_position_embeddings": 256,
        "initializer_range": 0.06,
    }
    return ArchitectureConfig.model_validate(base | changes)


def sequences(seed: int, lengths: tuple[int, ...] = (13, 30, 21)) -> list[np.ndarray]:
    """Token ids with learnable structure."""
    rng = np.random.default_rng(seed)
    out = []
    for n in lengths:
        ids = rng.integers(0, VOCAB, n)
        ids[1::2] = (ids[: len(ids[1::2]) * 2 : 2] * 7 + 3) % VOCAB
        out.append(ids)
    return out


def packed(seed: int, lengths: tuple[int, ...] = (13, 30, 21)) -> PackedBatch:
    """One bin; a fifth of the tokens is not trained."""
    ids = sequences(seed, lengths)
    rng = np.random.default_rng(seed + 1_000_000)
    return PackedBatch.from_sequences(ids, {"weight": [(rng.random(len(s)) > 0.2).astype(np.float32) for s in ids]})


def global_batch(step: int, size: int = 4) -> list[PackedBatch]:
    """Bins of different lengths and numbers of trained tokens."""
    shapes = [(13, 30, 21), (40, 9), (5, 7, 11, 3), (64,), (33, 2), (17, 17, 17)]
    return [packed(step * 100 + i, shapes[(step + i) % len(shapes)]) for i in range(size)]


def make_trainer(ranks: Ranks, arch: ArchitectureConfig, *, seed: int = 1, **parallel: object) -> Trainer:
    """A trainer with random weights."""
    config = ParallelConfig.model_validate(parallel)
    chunks = build_model(arch, config)
    load_random(chunks, arch, seed=seed)
    return build_trainer(chunks, arch, config, OptimizerConfig(lr=1e-3, weight_decay=0.1), ranks)
