"""Stages d, e and g: midtraining in Megatron-Core, its export compared with transformers, three RL runs."""

from __future__ import annotations

from typing import Any

from common.errors import GateError
from common.run_folder import RunFolder
from launch.quickstart.config import Folders, QuickstartConfig
from launch.quickstart.engine import chosen_engine
from launch.quickstart.pipeline import Summary
from rl.config import RLConfig

MAX_EXPORT_DIFFERENCE = 1e-4
"""Of any log-prob, Megatron against transformers in fp32."""


def run_midtrain(config: QuickstartConfig, folders: Folders) -> Summary:
    """Tensor parallel over gloo; ends with a checkpoint and an HF export."""
    from launch.training import midtrain

    run = midtrain(config.midtrain, folders.midtrain, config.midtrain_ranks)
    steps = run.read_metrics("midtrain")
    validation = run.read_metrics("midtrain_validation")
    seconds = sum(m["step_s"] for m in steps)
    tokens = sum(m["tokens_per_s"] * m["step_s"] for m in steps)
    parameters = config.midtrain.resolve_architecture().num_parameters
    return {
        "parameters": f"{parameters / 1e6:.2f} M",
        "layout": f"TP={config.midtrain.parallel.tensor}, {config.midtrain_ranks} ranks over gloo",
        "loss": f"{steps[0]['loss']:.2f} → {steps[-1]['loss']:.3f}",
        "held-out loss": _validation_loss(validation),
        "tokens/s": f"{tokens / seconds:.0f}",
    }


def _validation_loss(lines: list[dict[str, Any]]) -> str:
    losses = [next(iter(line["loss"].values())) for line in lines]
    return f"{losses[0]:.2f} → {losses[-1]:.3f}" if losses else "not measured"


def check_export(config: QuickstartConfig, folders: Folders) -> Summary:
    """transformers on the export agrees with Megatron on the checkpoint."""
    from launch.conversion import compare_with_transformers

    difference = compare_with_transformers(folders.midtrain, folders.model)
    if not difference <= MAX_EXPORT_DIFFERENCE:
        raise GateError(
            f"transformers and Megatron differ by {difference:.2g} in a log-prob, over {MAX_EXPORT_DIFFERENCE:g}",
            where=str(folders.model),
            fix="convert again (osim convert megatron-to-hf); if it stays, the mapping of this architecture is wrong",
        )
    size = sum(f.stat().st_size for f in folders.model.glob("*.safetensors"))
    return {"safetensors": f"{size / 1e6:.1f} MB", "max log-prob difference to transformers": f"{difference:.1e}"}


def run_rl(name: str, config: QuickstartConfig, folders: Folders) -> Summary:
    """A few steps of one algorithm, rollouts from the chosen engine, weights synchronised after each."""
    from launch.training import rl

    run = rl(with_engine(config.rl[name], folders), folders.rl(name), config.rl_ranks)
    return summarise_rl(run)


def with_engine(config: RLConfig, folders: Folders) -> RLConfig:
    """The run's configuration with the engine that this quickstart uses."""
    rollout = config.rollout.model_copy(update={"kind": chosen_engine(folders)})
    return config.model_copy(update={"rollout": rollout})


def summarise_rl(run: RunFolder) -> Summary:
    """What an RL run's metrics say in one line."""
    steps = run.read_metrics("rl")
    rewards = [m["reward/mean"] for m in steps]
    return {
        "steps": str(len(steps)),
        "reward": f"{rewards[0]:.3f} → {rewards[-1]:.3f}",
        "log-prob gap at step 0": f"{steps[0]['gap/max']:.1e}",
        "largest": f"{max(m['gap/max'] for m in steps):.1e}",
    }
