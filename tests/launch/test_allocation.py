"""What the preflight asks of an allocation."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.config import load
from launch.allocation.preflight import DISK_FLOOR_GIB, checkpoint_bytes, checkpoints_gib
from launch.kinds import load_recipe
from megatron_osim.config import ArchitectureConfig
from rl.config import RLConfig

RECIPES = Path(__file__).resolve().parents[2] / "launch" / "recipes"


def test_a_resumed_run_needs_room_only_for_the_checkpoints_it_does_not_have(tmp_path: Path) -> None:
    recipe = load_recipe("midtrain", RECIPES / "midtrain-qwen3-8b.yaml", ("checkpoint.keep_last=2",))
    needed = []
    for step in range(5):
        needed.append(checkpoints_gib(recipe, tmp_path) - DISK_FLOOR_GIB)
        (tmp_path / "checkpoints" / f"step-{step:08d}").mkdir(parents=True)
    one = needed[-1]
    assert needed == pytest.approx([3 * one, 2 * one, one, one, one]) and one > 100


def test_an_averaged_teacher_needs_room_for_its_weights_beside_each_checkpoint(tmp_path: Path) -> None:
    grpo = load_recipe("rl", RECIPES / "quickstart" / "grpo.yaml", ("model=/m", "rollout.kind=embedded"))
    assert isinstance(grpo, RLConfig)
    averaged = grpo.model_copy(update={"ema_decay": 0.99})
    arch = load(ArchitectureConfig, RECIPES / "architectures" / "qwen3-8b.yaml")
    more = checkpoint_bytes(averaged, arch) - checkpoint_bytes(grpo, arch)
    assert more == arch.num_parameters * (2 if grpo.precision == "bf16" else 4)
