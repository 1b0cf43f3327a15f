"""Closed configuration: every violation at once, nearest keys named, `extends` and overrides."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import Field

from common.config import Config, dump_yaml, load, parse_override, read_recipe, validate
from common.errors import ConfigError, UsageError


class Optimizer(Config):
    lr: float = Field(default=1e-3, gt=0)
    warmup_steps: int = 0


class Recipe(Config):
    steps: int
    optimizer: Optimizer = Optimizer()
    folders: tuple[Path, ...] = ()


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_all_violations_are_listed_at_once_and_unknown_keys_name_the_nearest() -> None:
    with pytest.raises(ConfigError) as caught:
        validate(Recipe, {"optimizer": {"lr": -1, "warmup_step": 3}, "folders": 3}, where="r.yaml")
    text = str(caught.value)
    assert text.startswith("r.yaml: 4 problems")
    assert "steps: missing" in text
    assert "optimizer.warmup_step: unknown key; did you mean 'warmup_steps'?" in text
    assert "optimizer.lr: Input should be greater than 0 (got -1)" in text
    assert "folders:" in text
    assert caught.value.exit_code == 2


def test_overrides_replace_what_the_recipe_says_and_yaml_reads_back_equal(tmp_path: Path) -> None:
    recipe = write(tmp_path / "r.yaml", "steps: 3\noptimizer: {lr: 0.5}\n")
    config = load(Recipe, recipe, ["optimizer.lr=1e-4", "folders=[a, b]"])
    assert config == Recipe(steps=3, optimizer=Optimizer(lr=1e-4), folders=(Path("a"), Path("b")))
    assert load(Recipe, write(tmp_path / "dump.yaml", dump_yaml(config))) == config


def test_extends_works_at_the_top_and_in_a_section_relative_to_the_file_that_says_it(tmp_path: Path) -> None:
    write(tmp_path / "parts/base.yaml", "steps: 1\noptimizer: {extends: slow.yaml, warmup_steps: 9}\n")
    write(tmp_path / "parts/slow.yaml", "lr: 0.25\nwarmup_steps: 5\n")
    recipe = write(tmp_path / "r.yaml", "extends: parts/base.yaml\nsteps: 2\n")
    assert read_recipe(recipe) == {"steps": 2, "optimizer": {"lr": 0.25, "warmup_steps": 9}}


def test_extends_in_a_circle_and_missing_files_are_usage_errors(tmp_path: Path) -> None:
    recipe = write(tmp_path / "r.yaml", "extends: r.yaml\n")
    with pytest.raises(UsageError, match="circles"):
        read_recipe(recipe)
    with pytest.raises(UsageError, match=r"nothing\.yaml: no such recipe file"):
        read_recipe(tmp_path / "nothing.yaml")
    with pytest.raises(UsageError, match="not valid YAML"):
        read_recipe(write(tmp_path / "bad.yaml", "a: [1"))


def test_override_without_value_is_refused() -> None:
    assert parse_override("a.b=x=y") == {"a": {"b": "x=y"}}
    with pytest.raises(UsageError, match=r"key\.path=value"):
        parse_override("steps")
