"""Builds single ranks of a 512-rank layout of Qwen3-8B on meta tensors, under a fake process group."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from megatron.core import parallel_state
from torch.testing._internal.distributed.fake_pg import FakeStore

from megatron_osim.config import ArchitectureConfig, ParallelConfig
from megatron_osim.convert.mapping import global_names, hf_shape, rule_for
from megatron_osim.convert.parameters import named_parameters
from megatron_osim.model import build_model
from megatron_osim.runtime import cpu, shutdown

ARCH = ArchitectureConfig(
    vocab_size=151936,
    hidden_size=4096,
    intermediate_size=12288,
    num_hidden_layers=36,
    num_attention_heads=32,
    num_key_value_heads=8,
    head_dim=128,
)
TENSOR, PIPELINE, WORLD = 4, 4, 512


def build(rank: int, virtual_pipeline: int | None) -> dict:
    """Names and shapes of one rank's parameters, and the shapes that conversion expects there."""
    parallel = ParallelConfig(
        tensor=TENSOR, pipeline=PIPELINE, virtual_pipeline=virtual_pipeline, sequence_parallel=True
    )
    dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=WORLD)
    parallel_state.initialize_model_parallel(TENSOR, PIPELINE, virtual_pipeline, create_gloo_process_groups=False)
    try:
        with torch.device("meta"):
            chunks = build_model(ARCH, parallel)
        mine = {name: list(p.shape) for name, p in named_parameters(chunks, ARCH).items()}
        return {
            "stage": parallel_state.get_pipeline_model_parallel_rank(),
            "data": parallel_state.get_data_parallel_world_size(),
            "parameters": mine,
            "expected": {name: _expected_shape(name) for name in mine},
            "whole_model": list(global_names(ARCH)),
        }
    finally:
        shutdown()


def _expected_shape(name: str) -> list[int]:
    rule = rule_for(ARCH, name)
    full = rule.merge([torch.empty(hf_shape(ARCH, n), device="meta") for n in rule.hf_names])
    return list(rule.shard(full, 0, TENSOR).shape)


def main(out: Path) -> None:
    cpu.install()
    for virtual_pipeline in (None, 3):
        # Ranks are numbered tensor first, then data, then pipeline.
        stages = [build(WORLD // PIPELINE * stage, virtual_pipeline) for stage in range(PIPELINE)]
        (out / f"{virtual_pipeline}.json").write_text(json.dumps(stages))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
