"""The plan of a midtraining recipe: memory, time, checkpoints, and what would run where the recipe would not.

Times are estimates from the cluster's assumed utilisation, never measurements.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from launch.plan.cluster import GIB, ClusterConfig
from launch.plan.exact import can_count, count
from launch.plan.memory import activation_bytes
from launch.plan.report import Alternative, Line, Report, memory_lines
from launch.plan.training import (
    Candidate,
    TrainingWork,
    candidate,
    fitting_layouts,
    step_seconds,
    violations,
)
from megatron_osim.config import MidtrainConfig

MAX_NODES = 128
MIN_SEQUENCE = 1024
HOUR_S = 3600


@dataclass(frozen=True)
class MidtrainPlan:
    """What a recipe needs."""

    chosen: Candidate | None
    """None when the layout is illegal."""
    seconds_per_step: float
    checkpoint_bytes: int
    report: Report


def plan_midtrain(
    config: MidtrainConfig, cluster: ClusterConfig, *, max_alternatives: int = 5, exact: bool = False
) -> MidtrainPlan:
    """Judge a recipe on a cluster. Never raises for a recipe that cannot run: that is the answer.

    exact: count weights, gradients and optimizer on the trainer itself, which takes some seconds.
    """
    work = work_of(config, cluster)
    illegal = [*violations(work, config.parallel), *_sequence(config, work)]
    chosen = None if illegal else candidate(work, config.parallel, cluster)
    stored = checkpoint_bytes(config, work)
    tokens = config.global_batch * config.data.sequence_length
    seconds = step_seconds(work, config.parallel, cluster, tokens)
    problems = list(illegal)
    lines = _head(config, work, cluster, seconds, stored)
    if chosen is not None:
        counted = count(work, [chosen])[0] if exact and can_count() else None
        lines += memory_lines(chosen.memory, cluster, counted, asked=exact)
        lines.append(_by_recompute(work, chosen))
        if chosen.verdict == "does not fit":
            over = chosen.memory.total / GIB - cluster.gpu_memory_gib
            problems.append(f"the fullest rank needs {over:.1f} GiB more than the GPU has")
        elif chosen.verdict == "tight":
            lines.append(("warning", f"less than the margin of {cluster.margin_gib:g} GiB is left"))
        problems += _time_limit(cluster, seconds, stored)
    found = [a for a in _alternatives(config, cluster) if a.overrides or a.nodes != cluster.nodes]
    return MidtrainPlan(
        chosen, seconds, stored, Report(tuple(lines), tuple(problems), tuple(found[:max_alternatives]))
    )


def work_of(config: MidtrainConfig, cluster: ClusterConfig) -> TrainingWork:
    """What the recipe trains."""
    arch = config.resolve_architecture()
    return TrainingWork(arch, config.precision, config.data.sequence_length, config.global_batch, cluster.world_size)


def checkpoint_bytes(config: MidtrainConfig, work: TrainingWork) -> int:
    """Weights, fp32 master weights, both moments. In fp32 the distributed optimizer saves the weights once more."""
    masters = config.precision == "bf16" or config.parallel.distributed_optimizer
    per_parameter = (2 if config.precision == "bf16" else 4) + 8 + (4 if masters else 0)
    return per_parameter * work.arch.num_parameters


def _sequence(config: MidtrainConfig, work: TrainingWork) -> list[str]:
    most = work.arch.max_position_embeddings
    length = config.data.sequence_length
    return [f"sequence_length {length} is more than the model's {most} positions"] if length > most else []


def _head(
    config: MidtrainConfig, work: TrainingWork, cluster: ClusterConfig, seconds: float, stored: int
) -> list[Line]:
    tokens = config.global_batch * config.data.sequence_length
    hours = seconds * config.steps / HOUR_S
    every = config.checkpoint.every_steps
    lines = [
        ("model", f"{work.arch.num_parameters:,} parameters"),
        ("cluster", f"{cluster.nodes} x {cluster.gpus_per_node} GPUs of {cluster.gpu_memory_gib:g} GiB"),
        (
            "step",
            f"{tokens:,} tokens, about {seconds:.1f} s or {tokens / seconds:,.0f} tokens/s at "
            f"{cluster.utilisation:.0%} utilisation (an assumption)",
        ),
        (
            "run",
            f"{config.steps} steps, {tokens * config.steps / 1e9:.2f} B tokens, about {hours:.1f} h"
            if config.epochs is None
            else f"{config.epochs:g} epochs; their steps are known when the shards are opened",
        ),
        (
            "checkpoint",
            f"{stored / GIB:.0f} GiB, about {_save_s(stored, cluster):.0f} s to write"
            + (f", every {every} steps or {seconds * every / 60:.0f} min" if every else ", at the end only"),
        ),
    ]
    if (limit := cluster.time_limit_s) and config.epochs is None:
        attempts = max(1, -(-int(seconds * config.steps) // max(1, int(limit - cluster.start_s))))
        lines.append(("time limit", f"{limit / HOUR_S:g} h: about {attempts} attempt{'s' * (attempts > 1)}"))
    return lines


def _by_recompute(work: TrainingWork, chosen: Candidate) -> Line:
    parts = []
    for mode in ("none", "selective", "full"):
        parallel = chosen.parallel.model_copy(update={"recompute": mode})
        size = activation_bytes(work.workload(parallel))
        parts.append(f"{mode} {size / GIB:.1f}")
    return ("recompute", f"activations in GiB by mode: {', '.join(parts)}")


def _save_s(stored: int, cluster: ClusterConfig) -> float:
    return stored / GIB / cluster.checkpoint_gib_per_s


def _time_limit(cluster: ClusterConfig, seconds: float, stored: int) -> list[str]:
    """An attempt must at least start, make a step and save it."""
    limit = cluster.time_limit_s
    if limit is None:
        return []
    least = cluster.start_s + seconds + _save_s(stored, cluster)
    if limit >= least + cluster.signal_lead_s:
        return []
    return [
        f"the time limit of {limit:.0f} s ends before one step is saved: start {cluster.start_s:.0f} s, step "
        f"{seconds:.0f} s, save {_save_s(stored, cluster):.0f} s, signal {cluster.signal_lead_s:.0f} s ahead"
    ]


def _alternatives(config: MidtrainConfig, cluster: ClusterConfig) -> Iterator[Alternative]:
    """Other layouts; where none fits, with a shorter sequence; where none does either, on more nodes."""
    for sequence in _sequences(config):
        found = list(_layouts(config, cluster, sequence))
        yield from found
        if found:
            return
    nodes = cluster.nodes * 2
    while nodes <= MAX_NODES:
        grown = cluster.model_copy(update={"nodes": nodes})
        found = list(_layouts(config, grown, min(config.data.sequence_length, _longest(config))))
        yield from found
        if found:
            return
        nodes *= 2


def _longest(config: MidtrainConfig) -> int:
    return config.resolve_architecture().max_position_embeddings


def _sequences(config: MidtrainConfig) -> Iterator[int]:
    """The recipe's own length if the model takes it; then halves."""
    length = min(config.data.sequence_length, _longest(config))
    yield length
    while (length := length // 2) >= MIN_SEQUENCE:
        yield length


def _layouts(config: MidtrainConfig, cluster: ClusterConfig, sequence: int) -> Iterator[Alternative]:
    work = replace(work_of(config, cluster), tokens=sequence)
    replicas = math.gcd(config.parallel.data(cluster.world_size), cluster.world_size)
    batch = math.ceil(config.global_batch / replicas) * replicas
    work = replace(work, global_batch=batch)
    for one in fitting_layouts(work, config.parallel, cluster):
        overrides = one.overrides(config.parallel)
        overrides += (f"data.sequence_length={sequence}",) if sequence != config.data.sequence_length else ()
        overrides += (f"global_batch={batch}",) if batch != config.global_batch else ()
        seconds = step_seconds(work, one.parallel, cluster, batch * sequence)
        if _time_limit(cluster, seconds, checkpoint_bytes(config, work)):
            continue
        room = "" if one.verdict == "fits" else ", tight"
        yield Alternative(
            overrides, cluster.nodes, f"{one.memory.total / GIB:.1f} GiB{room}, about {seconds:.1f} s a step"
        )
