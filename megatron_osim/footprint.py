"""Bytes of a training rank between steps, counted on the trainer itself: its model, gradient buffers and optimizer
are built on meta tensors, under a fake process group, so that neither memory nor other ranks are needed.

`python -m megatron_osim.footprint` reads one JSON request from stdin and writes one JSON answer to stdout. It needs a
process of its own: in it, Megatron's GPU is the meta device. `osim plan` starts it without visible GPUs. Layers are
then Megatron's local ones; Transformer Engine's hold the same parameters in other modules. An illegal layout ends it
with Megatron's own message.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable

import torch
import torch.distributed as dist
from megatron.core import parallel_state
from torch import Tensor
from torch.testing._internal.distributed.fake_pg import FakeStore

from common.config import Config
from megatron_osim.adamw import prepare_for_checkpoint
from megatron_osim.config import ArchitectureConfig, LoRAConfig, OptimizerConfig, ParallelConfig
from megatron_osim.layout import Capability
from megatron_osim.lora import attach as attach_lora
from megatron_osim.model import Precision, build_model
from megatron_osim.runtime import cpu, shutdown
from megatron_osim.runtime.distributed import standing
from megatron_osim.trainer import Trainer, build_trainer

META = torch.device("meta")


class Job(Config):
    """One layout of one model."""

    architecture: ArchitectureConfig
    parallel: ParallelConfig
    world_size: int
    precision: Precision
    lora: LoRAConfig | None = None


class Request(Config):
    """Layouts to count."""

    jobs: tuple[Job, ...]


class Footprint(Config):
    """What a rank holds between steps."""

    parameters: int
    """Elements of its weights, without padding."""
    weights: int
    """Bytes, with the padding of the distributed optimizer's buffers; so are the gradients'."""
    gradients: int
    optimizer: int
    """Bytes of moments, step counts and fp32 master weights."""


class Answer(Config):
    """By job: the first replica's rank of each pipeline stage."""

    stages: tuple[tuple[Footprint, ...], ...]


def count_stages(job: Job) -> tuple[Footprint, ...]:
    """The first replica's first tensor parallel rank of every pipeline stage. Needs `cpu.install(META)`."""
    per_stage = job.world_size // job.parallel.pipeline
    return tuple(count_rank(job, stage * per_stage) for stage in range(job.parallel.pipeline))


def count_rank(job: Job, rank: int) -> Footprint:
    """One rank of the job."""
    # Context parallelism splits no weight; for gradients and optimizer its ranks are further replicas.
    p = job.parallel.model_copy(update={"context": 1})
    dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=job.world_size)
    try:
        parallel_state.initialize_model_parallel(
            p.tensor,
            p.pipeline,
            p.virtual_pipeline,
            expert_model_parallel_size=p.expert,
            create_gloo_process_groups=False,
        )
        with META:
            chunks = build_model(job.architecture, p, precision=job.precision)
            if job.lora is not None:
                attach_lora(chunks, job.architecture, job.lora, seed=0)
            trainer = build_trainer(
                chunks,
                job.architecture,
                p,
                OptimizerConfig(),
                standing(p, META, Capability()),
                precision=job.precision,
                gloo_groups=False,
            )
            prepare_for_checkpoint(trainer.optimizer)
        return of_trainer(trainer)
    finally:
        shutdown()


def of_trainer(trainer: Trainer) -> Footprint:
    """What a trainer holds, real or on meta tensors. Adam's moments exist from the first step on."""
    buffers = [b for model in trainer.models for b in (*model.buffers, *model.expert_parallel_buffers)]
    parameters = [p for chunk in trainer.chunks for p in chunk.parameters()]
    trained = [p for p in parameters if p.requires_grad]
    weights = _bytes(b.param_data for b in buffers if b.param_data is not None) or _bytes(trained)
    weights += _bytes(p for p in parameters if not p.requires_grad)
    masters, states = [], []
    shared = {id(p) for p in parameters}
    for part in getattr(trainer.optimizer, "chained_optimizers", [trainer.optimizer]):
        held = [p for group in part.optimizer.param_groups for p in group["params"]]
        # In fp32 the optimizer steps on (views of) the weights themselves.
        masters += [p for p in held if trainer.precision != "fp32" and id(p) not in shared]
        states += [v for state in part.optimizer.state.values() for v in state.values() if torch.is_tensor(v)]
    return Footprint(
        parameters=sum(p.numel() for p in parameters),
        weights=weights,
        gradients=_bytes(b.grad_data for b in buffers),
        optimizer=_bytes(masters) + _bytes(states),
    )


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)


def main() -> None:
    cpu.install(META)
    request = Request.model_validate_json(sys.stdin.read())
    answer = Answer(stages=tuple(count_stages(job) for job in request.jobs))
    sys.stdout.write(answer.model_dump_json())


if __name__ == "__main__":
    main()
