"""The verdict on a midtraining recipe, and the legal layouts of the same model on the same cluster, best first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Literal

from launch.plan.cluster import GIB, ClusterConfig
from launch.plan.memory import RankMemory, Workload, rank_memory
from megatron_osim.config import ArchitectureConfig, MidtrainConfig, ParallelConfig
from megatron_osim.layout import Capability, layout_violations

Verdict = Literal["fits", "tight", "does not fit"]
HOPPER = Capability(cuda=True, transformer_engine=True)
MAX_TENSOR = 8
RECOMPUTE_COST = 4 / 3
"""A whole extra forward pass: 4 instead of 3 passes' worth of work."""


@dataclass(frozen=True)
class Candidate:
    """One layout with its needs."""

    parallel: ParallelConfig
    memory: RankMemory
    verdict: Verdict
    relative_time: float
    """Estimated step time relative to one without communication or recomputation; only for ranking."""


@dataclass(frozen=True)
class Plan:
    """What a recipe needs. Times are estimates from `ClusterConfig.utilisation`, not measurements."""

    violations: tuple[str, ...]
    chosen: Candidate | None
    """None when the layout is illegal."""
    alternatives: tuple[Candidate, ...]
    parameters: int
    tokens_per_step: int
    seconds_per_step: float
    checkpoint_bytes: int

    @property
    def refused(self) -> bool:
        return self.chosen is None or self.chosen.verdict == "does not fit"


def plan_midtrain(config: MidtrainConfig, cluster: ClusterConfig, *, max_alternatives: int = 5) -> Plan:
    """Judge a recipe on a cluster. Never raises for a recipe that cannot run: that is the answer."""
    arch = config.resolve_architecture()
    found = layout_violations(
        arch,
        config.parallel,
        world_size=cluster.world_size,
        capability=HOPPER,
        global_batch=config.global_batch,
    )
    chosen = None if found else candidate(config, arch, config.parallel, cluster)
    others = [c for c in _candidates(config, arch, cluster) if c.parallel != config.parallel]
    others.sort(key=lambda c: (c.verdict != "fits", c.relative_time))
    tokens = config.global_batch * config.data.sequence_length
    flops = arch.flops_per_token(config.data.sequence_length) * tokens
    seconds = flops / (cluster.world_size * cluster.peak_tflops * 1e12 * cluster.utilisation)
    bytes_per_parameter = 14 if config.precision == "bf16" else 12
    return Plan(
        violations=tuple(found),
        chosen=chosen,
        alternatives=tuple(others[:max_alternatives]),
        parameters=arch.num_parameters,
        tokens_per_step=tokens,
        seconds_per_step=seconds,
        checkpoint_bytes=bytes_per_parameter * arch.num_parameters,
    )


def candidate(
    config: MidtrainConfig, arch: ArchitectureConfig, parallel: ParallelConfig, cluster: ClusterConfig
) -> Candidate:
    """Memory and verdict of a legal layout."""
    micro_batches = config.global_batch // parallel.data(cluster.world_size)
    work = Workload(arch, parallel, cluster.world_size, config.data.sequence_length, micro_batches, config.precision)
    memory = rank_memory(work)
    return Candidate(parallel, memory, _verdict(memory, cluster), _relative_time(parallel, micro_batches, cluster))


def _verdict(memory: RankMemory, cluster: ClusterConfig) -> Verdict:
    if memory.total > cluster.gpu_memory_gib * GIB:
        return "does not fit"
    return "fits" if memory.total <= (cluster.gpu_memory_gib - cluster.margin_gib) * GIB else "tight"


def _relative_time(p: ParallelConfig, micro_batches: int, cluster: ClusterConfig) -> float:
    """Rank layouts: the pipeline's bubble, recomputation, and a price for splitting layers, dear across nodes."""
    bubble = 1 + (p.pipeline - 1) / (micro_batches * (p.virtual_pipeline or 1))
    recompute = RECOMPUTE_COST if p.recompute == "full" else 1.0
    tensor = 1 + 0.03 * (p.tensor - 1) + (1.0 if p.tensor > cluster.gpus_per_node else 0.0)
    return bubble * recompute * tensor


def _candidates(config: MidtrainConfig, arch: ArchitectureConfig, cluster: ClusterConfig) -> Iterator[Candidate]:
    """Legal layouts that do not overflow the card."""
    sizes = [1, 2, 4, 8, 16]
    experts = [1] if arch.moe is None else [1, 2, 4, 8, 16, 32]
    recomputes: tuple[Literal["none", "full"], ...] = ("none", "full")
    for tensor, pipeline, expert, recompute in product(sizes, sizes, experts, recomputes):
        if tensor > min(MAX_TENSOR, cluster.gpus_per_node):
            continue
        parallel = config.parallel.model_copy(
            update={
                "tensor": tensor,
                "pipeline": pipeline,
                "virtual_pipeline": None,
                "context": 1,
                "expert": expert,
                "sequence_parallel": tensor > 1,
                "recompute": recompute,
            }
        )
        illegal = layout_violations(
            arch, parallel, world_size=cluster.world_size, capability=HOPPER, global_batch=config.global_batch
        )
        if illegal:
            continue
        found = candidate(config, arch, parallel, cluster)
        if found.verdict != "does not fit":
            yield found
