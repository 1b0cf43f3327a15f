"""Builds single ranks of a 512-rank layout of Qwen3-8B on meta tensors, under a fake process group."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed as dist
from megatron.core import parallel_state
from torch.testing._internal.distributed.fake_pg import FakeStore

from megatron_osim.config import ArchitectureConfig, ParallelConfig
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
TENSOR, PIPELINE, CONTEXT, WORLD = 4, 4, 2, 512
DATA = WORLD // (TENSOR * PIPELINE * CONTEXT)


def build(rank: int, virtual_pipeline: int | None) -> dict:
    """Where one rank of TP4 x PP4 x CP2 x DP16 stands, and its parameters' names and shapes."""
    parallel = ParallelConfig(
        tensor=TENSOR,
        pipeline=PIPELINE,
        context=CONTEXT,
        virtual_pipeline=virtual_pipeline,
        sequence_parallel=True,
    )
    with _job(rank, WORLD, TENSOR, PIPELINE, virtual_pipeline, CONTEXT):
        return {
            "rank": rank,
            "tensor": parallel_state.get_tensor_model_parallel_rank(),
            "stage": parallel_state.get_pipeline_model_parallel_rank(),
            "context": parallel_state.get_context_parallel_rank(),
            "context_size": parallel_state.get_context_parallel_world_size(),
            "data_size": parallel_state.get_data_parallel_world_size(),
            "parameters": _shapes(parallel),
        }


def build_whole() -> dict:
    """The same model on one rank."""
    with _job(0, 1, 1, 1, None, 1):
        return _shapes(ParallelConfig())


@contextmanager
def _job(rank: int, world_size: int, *sizes: int | None) -> Iterator[None]:
    tensor, pipeline, virtual_pipeline, context = sizes
    dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=world_size)
    parallel_state.initialize_model_parallel(
        tensor, pipeline, virtual_pipeline, context_parallel_size=context, create_gloo_process_groups=False
    )
    try:
        yield
    finally:
        shutdown()


def _shapes(parallel: ParallelConfig) -> dict[str, list[int]]:
    with torch.device("meta"):
        chunks = build_model(ARCH, parallel)
    return {name: list(p.shape) for name, p in named_parameters(chunks, ARCH).items()}


def main(out: Path) -> None:
    cpu.install()
    (out / "whole.json").write_text(json.dumps(build_whole()))
    for virtual_pipeline in (None, 3):
        # Ranks are numbered tensor first, then context, data, pipeline: all tensor ranks of a stage, with other
        # context and data coordinates on each stage.
        ranks = [
            WORLD // PIPELINE * stage + (stage % DATA) * TENSOR * CONTEXT + (stage % CONTEXT) * TENSOR + tensor
            for stage in range(PIPELINE)
            for tensor in range(TENSOR)
        ]
        (out / f"{virtual_pipeline}.json").write_text(json.dumps([build(r, virtual_pipeline) for r in ranks]))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
