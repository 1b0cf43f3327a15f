"""`osim plan`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from common.errors import ExitCode
from launch.commands.options import Overrides, Recipe, example

if TYPE_CHECKING:
    from launch.plan.alternatives import Candidate, Plan
    from launch.plan.cluster import ClusterConfig

app = typer.Typer()
GIB = 2**30
RECIPE, CLUSTER = "launch/recipes/midtrain-qwen3-8b.yaml", "launch/recipes/clusters/h100-8x8.yaml"


@app.command(**example(f"osim plan --recipe {RECIPE} \\", f"    --cluster {CLUSTER}"))
def plan(
    recipe: Recipe,
    cluster: Annotated[Path | None, typer.Option(help="YAML of the cluster; default: one node of 8 H100.")] = None,
    overrides: Overrides = None,
) -> None:
    """Memory, time and checkpoints of a midtraining recipe on a cluster, and layouts that fit.

    Exit 3 if it cannot run.
    """
    from common.config import load
    from launch.plan.alternatives import plan_midtrain
    from launch.plan.cluster import ClusterConfig
    from megatron_osim.config import MidtrainConfig

    config = load(MidtrainConfig, recipe, overrides or ())
    machines = load(ClusterConfig, cluster)
    found = plan_midtrain(config, machines)
    for line in _lines(found, machines, config.steps):
        typer.echo(line)
    if found.refused:
        raise typer.Exit(int(ExitCode.GATE))


def _lines(found: Plan, cluster: ClusterConfig, steps: int) -> list[str]:
    hours = found.seconds_per_step * steps / 3600
    lines = [
        f"model       {found.parameters:,} parameters",
        f"cluster     {cluster.nodes} x {cluster.gpus_per_node} GPUs of {cluster.gpu_memory_gib:g} GiB",
        f"step        {found.tokens_per_step:,} tokens, about {found.seconds_per_step:.1f} s at "
        f"{cluster.utilisation:.0%} utilisation (an assumption); {steps} steps: {hours:.1f} h",
        f"checkpoint  {found.checkpoint_bytes / GIB:.0f} GiB, about "
        f"{found.checkpoint_bytes / GIB / cluster.checkpoint_gib_per_s:.0f} s to write",
    ]
    if found.chosen is None:
        lines += ["layout      illegal", *(f"  - {violation}" for violation in found.violations)]
    else:
        m = found.chosen.memory
        parts = {"weights": m.weights, "gradients": m.gradients, "optimizer": m.optimizer}
        parts |= {"activations": m.activations, "logits and loss": m.logits}
        lines += [f"  {name:<16}{size / GIB:6.1f} GiB" for name, size in parts.items()]
        left = cluster.gpu_memory_gib - m.total / GIB
        lines.append(f"  {'total':<16}{m.total / GIB:6.1f} GiB of the fullest rank, {left:.1f} GiB left")
        lines.append(f"verdict     {found.chosen.verdict} (margin for CUDA and NCCL: {cluster.margin_gib:g} GiB)")
    if found.alternatives:
        lines.append("alternatives, best first:" if not found.refused else "what would run, best first:")
        lines += [f"  {_layout(c):<60} {c.memory.total / GIB:5.1f} GiB  {c.verdict}" for c in found.alternatives]
    elif found.refused:
        lines.append("no layout of this model fits: use more GPUs, a shorter sequence or a smaller model")
    return lines


def _layout(candidate: Candidate) -> str:
    p = candidate.parallel
    text = f"parallel.tensor={p.tensor} parallel.pipeline={p.pipeline}"
    text += f" parallel.expert={p.expert}" if p.expert > 1 else ""
    return f"{text} parallel.recompute={p.recompute}"
