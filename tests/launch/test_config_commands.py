"""`osim config show / diff`."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from common.errors import UsageError
from launch import cli
from launch.kinds import shipped


def run(*arguments: str) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.run(["config", *arguments])
    assert ended.value.code == 0


def test_show_prints_the_resolved_recipe_with_overrides_and_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    run("show", "quickstart", str(shipped("quickstart-fast.yaml")), "midtrain.optimizer.lr=1e-4")
    shown = yaml.safe_load(capsys.readouterr().out)
    assert shown["midtrain"]["optimizer"]["lr"] == 1e-4
    assert shown["midtrain"]["anomaly"]["action"] == "stop"
    assert shown["rl"]["grpo"]["model"] == "RUN/midtrain/hf"


def test_diff_names_each_key_that_differs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    left, right = tmp_path / "a.yaml", tmp_path / "b.yaml"
    for path, steps, lr in ((left, 5, 0.1), (right, 6, 0.1)):
        path.write_text(
            f"extends: {shipped('midtrain-qwen3-8b.yaml')}\nsteps: {steps}\noptimizer: {{lr: {lr}}}\n"
            f"data: {{sources: [{{name: x, prefixes: [{path.stem}]}}]}}\n"
        )
    run("diff", "midtrain", str(left), str(right))
    assert capsys.readouterr().out == "data.sources.0.prefixes: ['a'] → ['b']\nsteps: 5 → 6\n"


def test_unknown_kind_names_the_known_ones() -> None:
    with pytest.raises(UsageError, match="did you mean 'midtrain'"):
        cli.run(["config", "show", "midtrian", "x.yaml"])
