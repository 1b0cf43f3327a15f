"""Process groups of one training job. Every rank calls `initialize` with the same arguments but its own rank.

On failure (a rank that never arrives, a rendezvous that cannot be reached) `initialize` raises after `timeout_s`;
nothing waits for ever.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from megatron.core import parallel_state, tensor_parallel

from common.errors import ConfigError, UsageError
from megatron_osim.config import ParallelConfig
from megatron_osim.layout import Capability
from megatron_osim.runtime import cpu
from megatron_osim.runtime.capability import detect_capability
from megatron_osim.vector_math import choose_kernels


@dataclass(frozen=True)
class Ranks:
    """Where this process stands."""

    rank: int
    world_size: int
    tensor_rank: int
    tensor_size: int
    pipeline_rank: int
    pipeline_size: int
    data_rank: int
    data_size: int
    device: torch.device
    capability: Capability
    context_rank: int = 0
    context_size: int = 1

    @property
    def is_first(self) -> bool:
        """This is global rank 0, which writes metrics and exports."""
        return self.rank == 0

    @property
    def is_last_stage(self) -> bool:
        """This rank computes log-probs and losses."""
        return self.pipeline_rank == self.pipeline_size - 1


def initialize(
    parallel: ParallelConfig,
    *,
    seed: int = 0,
    rank: int = 0,
    world_size: int = 1,
    rendezvous: str = "env://",
    timeout_s: float = 600.0,
) -> Ranks:
    """Join the job and build Megatron's process groups.

    `rendezvous` is `file:///path` (a fresh file on a folder all ranks see; rank and world_size are taken as given)
    or `env://` (torchrun or Slurm set RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT and LOCAL_RANK). Collectives give
    up after `timeout_s`.
    """
    choose_kernels()
    cpu.install()
    capability = detect_capability()
    if rendezvous == "env://":
        rank, world_size = _from_environment("RANK"), _from_environment("WORLD_SIZE")
    if world_size % parallel.model_size:
        raise ConfigError(
            [f"{world_size} ranks do not split into replicas of {parallel.model_size}"], where="parallel"
        )
    device = _own_device(rank) if capability.cuda else torch.device("cpu")
    if rendezvous.startswith("file://"):
        # One machine: gloo need not resolve the host's name.
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if capability.cuda else "gloo",
        init_method=rendezvous,
        rank=rank,
        world_size=world_size,
        timeout=timedelta(seconds=timeout_s),
    )
    parallel_state.initialize_model_parallel(
        tensor_model_parallel_size=parallel.tensor,
        pipeline_model_parallel_size=parallel.pipeline,
        virtual_pipeline_model_parallel_size=parallel.virtual_pipeline,
        context_parallel_size=parallel.context,
        expert_model_parallel_size=parallel.expert,
        distributed_timeout_minutes=max(1, int(timeout_s // 60)),
        create_gloo_process_groups=True,
    )
    seed_generators(seed)
    return standing(parallel, device, capability)


def standing(parallel: ParallelConfig, device: torch.device, capability: Capability) -> Ranks:
    """Where this process stands in the groups that exist now."""
    return Ranks(
        rank=dist.get_rank(),
        world_size=dist.get_world_size(),
        tensor_rank=parallel_state.get_tensor_model_parallel_rank(),
        tensor_size=parallel.tensor,
        pipeline_rank=parallel_state.get_pipeline_model_parallel_rank(),
        pipeline_size=parallel.pipeline,
        data_rank=parallel_state.get_data_parallel_rank(),
        data_size=parallel_state.get_data_parallel_world_size(),
        device=device,
        capability=capability,
        context_rank=parallel_state.get_context_parallel_rank(),
        context_size=parallel.context,
    )


def seed_generators(seed: int) -> None:
    """Seed torch and Megatron's RNG tracker. Weights and data order do not depend on this; dropout would."""
    torch.manual_seed(seed)
    tensor_parallel.model_parallel_cuda_manual_seed(seed, force_reset_rng=True)


def shutdown() -> None:
    """Leave the job. Safe to call when `initialize` failed half-way, and twice."""
    if parallel_state.is_initialized():
        parallel_state.destroy_model_parallel()
    if dist.is_initialized():
        dist.destroy_process_group()


def _from_environment(name: str) -> int:
    value = os.environ.get(name, "")
    if not value.isdigit():
        raise UsageError(
            f"{name} is not set, and the rendezvous is env://",
            fix="start with torchrun or Slurm, or use `osim launch`",
        )
    return int(value)


def _own_device(rank: int) -> torch.device:
    local_rank = int(os.environ.get("LOCAL_RANK", rank % torch.cuda.device_count()))
    torch.cuda.set_device(local_rank)
    return torch.device("cuda", local_rank)
