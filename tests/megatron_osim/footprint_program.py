"""Builds the real trainer of several layouts on two gloo ranks, and says what each rank holds after one step."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from common.files import write_json
from megatron_osim.adamw import prepare_for_checkpoint
from megatron_osim.architecture import ArchitectureConfig, MoeConfig
from megatron_osim.config import LoRAConfig, OptimizerConfig, ParallelConfig
from megatron_osim.convert import load_random
from megatron_osim.footprint import Job, of_trainer
from megatron_osim.lora import attach as attach_lora
from megatron_osim.model import build_model
from megatron_osim.trainer import build_trainer
from tests.megatron_osim.spmd import layout

DENSE = ArchitectureConfig(
    vocab_size=300,
    hidden_size=48,
    intermediate_size=72,
    num_hidden_layers=4,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=12,
)
TIED = DENSE.model_copy(update={"tie_word_embeddings": True})
MOE = DENSE.model_copy(
    update={
        "model_type": "qwen3_moe",
        "moe": MoeConfig(num_experts=4, num_experts_per_tok=2, moe_intermediate_size=24),
    }
)
WORLD = 2
JOBS = {
    "tp2-sp": Job(
        architecture=DENSE,
        parallel=ParallelConfig(tensor=2, sequence_parallel=True),
        world_size=WORLD,
        precision="fp32",
    ),
    "pp2-tied": Job(architecture=TIED, parallel=ParallelConfig(pipeline=2), world_size=WORLD, precision="bf16"),
    "pp2-vp2": Job(
        architecture=DENSE,
        parallel=ParallelConfig(pipeline=2, virtual_pipeline=2),
        world_size=WORLD,
        precision="bf16",
    ),
    "dp2": Job(architecture=TIED, parallel=ParallelConfig(), world_size=WORLD, precision="bf16"),
    "dp2-plain": Job(
        architecture=DENSE,
        parallel=ParallelConfig(distributed_optimizer=False),
        world_size=WORLD,
        precision="bf16",
    ),
    "ep2": Job(architecture=MOE, parallel=ParallelConfig(expert=2), world_size=WORLD, precision="fp32"),
    "lora-tp2-sp": Job(
        architecture=DENSE,
        parallel=ParallelConfig(tensor=2, sequence_parallel=True),
        world_size=WORLD,
        precision="fp32",
        lora=LoRAConfig(rank=8),
    ),
    "lora-pp2-tied": Job(
        architecture=TIED,
        parallel=ParallelConfig(pipeline=2),
        world_size=WORLD,
        precision="bf16",
        lora=LoRAConfig(rank=8),
    ),
    "lora-dp2": Job(
        architecture=DENSE,
        parallel=ParallelConfig(),
        world_size=WORLD,
        precision="bf16",
        lora=LoRAConfig(rank=8),
    ),
}


def main(out: Path) -> None:
    for name, job in JOBS.items():
        with layout(job.parallel, WORLD, out / f"{name}.rendezvous") as ranks:
            assert ranks is not None
            chunks = build_model(job.architecture, job.parallel, precision=job.precision)
            load_random(chunks, job.architecture, seed=0)
            if job.lora is not None:
                attach_lora(chunks, job.architecture, job.lora, seed=0)
            trainer = build_trainer(
                chunks, job.architecture, job.parallel, OptimizerConfig(), ranks, precision=job.precision
            )
            prepare_for_checkpoint(trainer.optimizer)
            write_json(out / f"{name}-{os.environ['RANK']}.json", of_trainer(trainer).model_dump())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
