"""Every RL recipe loads, jointly and for each task alone, and says what it is meant to say."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.config import load
from common.errors import UsageError
from envs import registry
from launch.commands.rl import choose
from rl.config import RLConfig

RECIPES = sorted((Path(__file__).resolve().parents[2] / "launch" / "recipes" / "rl").glob("*.yaml"))


def read(path: Path) -> RLConfig:
    return load(RLConfig, path, ("model=x",))


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_a_recipe_loads_jointly_and_for_every_task_alone(path: Path) -> None:
    config = read(path)
    wanted = "verbal_feedback" if path.stem.endswith("verbal-feedback") else "grpo"
    assert {t.algorithm.name for t in config.tasks} == {wanted}
    for name in registry.names():
        (one,) = choose(config, [name], None).tasks
        assert one.task == name and one.algorithm.name == wanted and one.profile == config.tasks[0].profile


@pytest.mark.parametrize("kind", ["odyssim", "corrected"])
@pytest.mark.parametrize("algorithm", ["grpo", "verbal-feedback"])
def test_the_published_settings_are_the_papers(kind: str, algorithm: str) -> None:
    (path,) = [p for p in RECIPES if p.stem == f"{kind}-{algorithm}"]
    config = read(path)
    assert (config.groups_per_step, config.samples_per_prompt, config.mini_batches, config.steps) == (64, 8, 4, 200)
    assert config.optimizer.lr == 5e-6 and config.optimizer.schedule == "constant"
    assert config.sampling.max_tokens == 8192 and config.sampling.max_context_tokens == 16384
    assert config.lora is not None and (config.lora.rank, config.lora.alpha) == (32, 64)
    assert len(config.tasks) == 10
    for task in config.tasks:
        surrogate = task.algorithm.surrogate() if task.algorithm.name == "grpo" else task.algorithm
        assert (surrogate.clip_low, surrogate.clip_high, surrogate.dual_clip) == (0.2, 0.28, 10.0)
        assert task.profile == ("soul" if kind == "odyssim" else "strict")
    assert (config.loss.tis_cap is None) == (kind == "odyssim")


def test_an_unknown_task_names_near_ones_and_data_is_found_by_name(tmp_path: Path) -> None:
    config = read(next(p for p in RECIPES if p.stem == "cpu-grpo"))
    with pytest.raises(UsageError, match="hitom"):
        choose(config, ["hitomm"], None)
    (tmp_path / "fantom.json").touch()
    (one,) = choose(config, ["fantom"], tmp_path).tasks
    assert one.data == tmp_path / "fantom.json"
