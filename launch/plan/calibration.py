"""Predicted against measured, of a finished midtraining run: what to correct in a cluster file."""

from __future__ import annotations

import statistics
from pathlib import Path

from common.config import load
from common.errors import UsageError, data_errors
from common.files import read_json_object
from common.run_folder import RunFolder
from launch.plan.cluster import GIB, ClusterConfig
from launch.plan.midtrain import plan_midtrain, work_of
from megatron_osim.config import MidtrainConfig

USED = ("step_s", "peak_memory_gib", "tokens_per_s", "tflops_per_rank")
WARM_UP = 0.1
"""Share of the first steps that is left out of the median."""


def compare(folder: Path, cluster: ClusterConfig) -> str:
    """One line a quantity. Raises UsageError for a folder that is no midtraining run with finished steps."""
    run = RunFolder(folder)
    with data_errors(str(run.metrics), fix="give a run folder whose metrics are whole"):
        steps = [{k: float(m[k]) for k in USED} for m in run.read_metrics("midtrain")]
    if not run.config.is_file() or not steps:
        fix = "give the folder of an `osim midtrain` that has made steps"
        raise UsageError("no midtraining run to compare with", where=str(folder), fix=fix)
    config = load(MidtrainConfig, run.config)
    used = _cluster_of(config, steps[-1], cluster)
    found = plan_midtrain(config, used)
    measured_s = statistics.median(m["step_s"] for m in steps[int(len(steps) * WARM_UP) :])
    utilisation = cluster.utilisation * found.seconds_per_step / measured_s
    lines = [
        f"{folder}: {used.world_size} rank{'s' * (used.world_size > 1)}, {len(steps)} steps",
        _line("step", f"{found.seconds_per_step:.3g} s", f"{measured_s:.3g} s", found.seconds_per_step / measured_s),
        f"  utilisation   assumed {cluster.utilisation:g}, measured {utilisation:.2g} of {cluster.peak_tflops:g} "
        "TFLOP/s",
    ]
    if found.chosen is not None:
        peak = max(m["peak_memory_gib"] for m in steps)
        predicted = found.chosen.memory.total / GIB
        lines.append(_line("peak memory", f"{predicted:.2f} GiB", f"{peak:.2f} GiB", predicted / peak))
        packages = read_json_object(run.manifest).get("packages") if run.manifest.is_file() else None
        if isinstance(packages, dict) and str(packages.get("torch", "")).endswith("+cpu"):
            lines.append("                measured without a GPU: all of the first rank's process")
    sizes = [_bytes_of(path) for path in sorted(run.checkpoints.glob("step-*"))]
    if sizes:
        ratio = found.checkpoint_bytes / sizes[-1]
        lines.append(
            _line("checkpoint", f"{found.checkpoint_bytes / 1e6:.1f} MB", f"{sizes[-1] / 1e6:.1f} MB", ratio)
        )
    return "\n".join(lines)


def _line(name: str, predicted: str, measured: str, ratio: float) -> str:
    return f"  {name:<13} predicted {predicted}, measured {measured}: {ratio:.2g} x"


def _cluster_of(config: MidtrainConfig, step: dict[str, float], cluster: ClusterConfig) -> ClusterConfig:
    """The cluster with as many GPUs as the run had ranks."""
    arch = work_of(config, cluster).arch
    flops = arch.flops_per_token(config.data.sequence_length) * step["tokens_per_s"]
    ranks = max(1, round(flops / (step["tflops_per_rank"] * 1e12)))
    per_node = min(ranks, cluster.gpus_per_node)
    return cluster.model_copy(update={"nodes": -(-ranks // per_node), "gpus_per_node": per_node})


def _bytes_of(folder: Path) -> int:
    return sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
