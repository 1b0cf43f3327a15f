"""Every shipped midtraining recipe loads, is legal on its cluster and keeps what the OSim recipe promises."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.config import load
from megatron_osim.config import MidtrainConfig
from megatron_osim.layout import Capability, layout_violations

FOLDER = Path(__file__).resolve().parents[2] / "launch" / "recipes"
RECIPES = sorted(FOLDER.glob("midtrain-*.yaml"))
HOPPER = Capability(cuda=True, transformer_engine=True)
WORLD_SIZES = {"midtrain-qwen3-8b": 64, "midtrain-qwen3-30b-a3b": 64, "midtrain-tiny-cpu": 1}
PARAMETERS = {"8b": 8_190_735_360, "4b": 4_022_468_096, "1.7b": 1_720_574_976, "0.6b": 596_049_920}
"""As published; embeddings counted once where they are tied."""


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda p: p.stem)
def test_every_recipe_is_legal_where_it_says_it_runs(recipe: Path) -> None:
    config = load(MidtrainConfig, recipe)
    capability = Capability() if "cpu" in recipe.stem else HOPPER
    world_size = WORLD_SIZES.get(recipe.stem, 8)
    assert (
        layout_violations(
            config.resolve_architecture(),
            config.parallel,
            world_size=world_size,
            capability=capability,
            global_batch=config.global_batch,
            fp8=config.fp8,
        )
        == []
    )


@pytest.mark.parametrize("size", list(PARAMETERS))
def test_the_osim_recipes_differ_in_the_model_only(size: str) -> None:
    config = load(MidtrainConfig, FOLDER / f"midtrain-osim-qwen3-{size}.yaml")
    assert config.resolve_architecture().num_parameters == PARAMETERS[size]
    assert (config.steps, config.precision, config.data.sequence_length) == (4500, "bf16", 16384 + 8192)
    o = config.optimizer
    assert (o.lr, o.min_lr, o.schedule, o.warmup_steps, o.betas) == (1e-5, 0.0, "cosine", 50, (0.9, 0.999))
    # About 1,024 conversations of 467 tokens.
    assert config.global_batch * config.data.sequence_length / 467 == pytest.approx(1024, rel=0.05)


def test_the_full_epoch_variant_takes_its_steps_from_the_data() -> None:
    config = load(MidtrainConfig, FOLDER / "midtrain-osim-qwen3-8b-epoch.yaml")
    assert (config.steps, config.epochs) == (0, 1.0)
