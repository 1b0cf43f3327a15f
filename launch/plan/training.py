"""What training needs of a cluster in one layout, and the legal layouts that fit, best first. No torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Literal

from launch.plan.cluster import GIB, ClusterConfig
from launch.plan.memory import RankMemory, Workload, rank_memory
from megatron_osim.config import ArchitectureConfig, LoRAConfig, ParallelConfig
from megatron_osim.layout import Capability, layout_violations

Verdict = Literal["fits", "tight", "does not fit"]
HOPPER = Capability(cuda=True, transformer_engine=True)
MAX_TENSOR = 8
SEARCHED = ("tensor", "pipeline", "virtual_pipeline", "context", "expert", "sequence_parallel", "recompute")


@dataclass(frozen=True)
class TrainingWork:
    """What is trained, whatever the layout."""

    arch: ArchitectureConfig
    precision: Literal["fp32", "bf16"]
    tokens: int
    """Of one micro-batch."""
    global_batch: int | None
    """Micro-batches of one step over all replicas; None where the data decides (RL)."""
    world_size: int
    lora: LoRAConfig | None = None

    def workload(self, parallel: ParallelConfig) -> Workload:
        """What one rank works on."""
        return Workload(
            self.arch, parallel, self.world_size, self.tokens, self.micro_batches(parallel), self.precision, self.lora
        )

    def micro_batches(self, parallel: ParallelConfig) -> int:
        """Of one replica; as many as keep a pipeline full where the data decides."""
        if self.global_batch is None:
            return parallel.pipeline
        return max(1, self.global_batch // max(1, parallel.data(self.world_size)))


@dataclass(frozen=True)
class Candidate:
    """One legal layout with its needs."""

    parallel: ParallelConfig
    memory: RankMemory
    verdict: Verdict
    relative_time: float
    """Estimated step time relative to one without communication or recomputation; only for ranking."""

    def overrides(self, base: ParallelConfig) -> tuple[str, ...]:
        """What turns the layout `base` into this one, as overrides of a recipe."""
        return tuple(
            f"parallel.{name}={_yaml(getattr(self.parallel, name))}"
            for name in SEARCHED
            if getattr(self.parallel, name) != getattr(base, name)
        )


def _yaml(value: object) -> str:
    return "null" if value is None else str(value).lower()


def violations(work: TrainingWork, parallel: ParallelConfig) -> list[str]:
    """Why the layout is illegal on Hopper GPUs with Transformer Engine; empty = legal."""
    found = layout_violations(
        work.arch, parallel, world_size=work.world_size, capability=HOPPER, global_batch=work.global_batch
    )
    if work.lora is not None and work.arch.moe is not None:
        found.append("LoRA on experts is not built: leave lora out")
    return found


def candidate(work: TrainingWork, parallel: ParallelConfig, cluster: ClusterConfig) -> Candidate:
    """Memory and verdict of a legal layout."""
    memory = rank_memory(work.workload(parallel))
    return Candidate(parallel, memory, verdict(memory.total, cluster), _relative_time(work, parallel, cluster))


def verdict(total_bytes: float, cluster: ClusterConfig) -> Verdict:
    """Of one GPU's bytes."""
    if total_bytes > cluster.gpu_memory_gib * GIB:
        return "does not fit"
    return "fits" if total_bytes <= (cluster.gpu_memory_gib - cluster.margin_gib) * GIB else "tight"


def step_seconds(work: TrainingWork, parallel: ParallelConfig, cluster: ClusterConfig, step_tokens: float) -> float:
    """Forward, backward and update of `step_tokens`, at the cluster's assumed utilisation, with the pipeline's bubble
    and recomputation. Frozen weights (LoRA) have no gradient: their backward pass is one product instead of two."""
    matmuls, attention = _forward_flops(work)
    again = 1 if parallel.recompute == "full" else 0
    per_token = (3 + again) * attention + ((3 if work.lora is None else 2) + again) * matmuls
    return _seconds(per_token * step_tokens, work, parallel, cluster)


def forward_seconds(
    work: TrainingWork, parallel: ParallelConfig, cluster: ClusterConfig, step_tokens: float
) -> float:
    """Log-probs of `step_tokens`."""
    return _seconds(sum(_forward_flops(work)) * step_tokens, work, parallel, cluster)


def _forward_flops(work: TrainingWork) -> tuple[float, float]:
    """Of one token: products with weights, and attention. Training takes three times as much."""
    matmuls = work.arch.matmul_flops_per_token
    return matmuls / 3, (work.arch.flops_per_token(work.tokens) - matmuls) / 3


def _seconds(flops: float, work: TrainingWork, parallel: ParallelConfig, cluster: ClusterConfig) -> float:
    seconds = flops / (work.world_size * cluster.peak_tflops * 1e12 * cluster.utilisation)
    return seconds * _bubble(parallel, work.micro_batches(parallel))


def fitting_layouts(work: TrainingWork, base: ParallelConfig, cluster: ClusterConfig) -> list[Candidate]:
    """Legal layouts that do not overflow the card, best first; those without room to spare come last."""
    found = list(_search(work, base, cluster))
    found.sort(key=lambda c: (c.verdict != "fits", c.relative_time, len(c.overrides(base))))
    return found


def _search(work: TrainingWork, base: ParallelConfig, cluster: ClusterConfig) -> Iterator[Candidate]:
    sizes = [1, 2, 4, 8, 16]
    experts = [1] if work.arch.moe is None else [1, 2, 4, 8, 16, 32]
    lean = "none" if base.recompute == "full" else base.recompute
    virtuals = {base.virtual_pipeline: None, None: None}
    for tensor, pipeline, context, expert, virtual, recompute in product(
        sizes, sizes, sizes, experts, virtuals, (lean, "full")
    ):
        if tensor > min(MAX_TENSOR, cluster.gpus_per_node) or tensor * pipeline * context > work.world_size:
            continue
        parallel = base.model_copy(
            update={
                "tensor": tensor,
                "pipeline": pipeline,
                "virtual_pipeline": virtual,
                "context": context,
                "expert": expert,
                "sequence_parallel": tensor > 1,
                "recompute": recompute,
            }
        )
        if not violations(work, parallel):
            found = candidate(work, parallel, cluster)
            if found.verdict != "does not fit":
                yield found


def _bubble(p: ParallelConfig, micro_batches: int) -> float:
    return 1 + (p.pipeline - 1) / (micro_batches * (p.virtual_pipeline or 1))


def _relative_time(work: TrainingWork, p: ParallelConfig, cluster: ClusterConfig) -> float:
    """Rank layouts: the pipeline's bubble, recomputation, and a price for splitting layers, dear across nodes, and
    for exchanging keys and values."""
    passes = 3 if work.lora is None else 2
    recompute = (passes + 1) / passes if p.recompute == "full" else 1.0
    split = 1 + 0.03 * (p.tensor - 1) + (1.0 if p.tensor > cluster.gpus_per_node else 0.0)
    split += 0.04 * (p.context - 1) + (0.2 if p.tensor * p.context > cluster.gpus_per_node else 0.0)
    return _bubble(p, work.micro_batches(p)) * recompute * split
