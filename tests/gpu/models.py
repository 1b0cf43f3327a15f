"""A model of real head sizes, and trainers on it with chosen layers."""

from __future__ import annotations

from megatron_osim.config import ArchitectureConfig, Fp8Config, OptimizerConfig, ParallelConfig
from megatron_osim.convert import load_random
from megatron_osim.layout import Capability
from megatron_osim.model import Precision, build_model
from megatron_osim.runtime import Ranks
from megatron_osim.trainer import Trainer, build_trainer
from tests.megatron_osim.samples import tiny

LOCAL = Capability(cuda=True)
"""A GPU without Transformer Engine."""


def wide() -> ArchitectureConfig:
    """Heads of 64 and widths that FP8 accepts."""
    return tiny(hidden_size=256, intermediate_size=512, head_dim=64, num_attention_heads=4, num_key_value_heads=2)


def make(
    ranks: Ranks,
    *,
    precision: Precision = "bf16",
    fp8: Fp8Config | None = None,
    capability: Capability | None = None,
    seed: int = 1,
    **parallel: object,
) -> Trainer:
    """Random weights that depend on the seed alone."""
    layout = ParallelConfig.model_validate(parallel)
    chunks = build_model(wide(), layout, precision=precision, fp8=fp8, capability=capability)
    load_random(chunks, wide(), seed=seed)
    optimizer = OptimizerConfig(lr=1e-3, weight_decay=0.1)
    return build_trainer(chunks, wide(), layout, optimizer, ranks, precision=precision, fp8=fp8)
