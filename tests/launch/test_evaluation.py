"""An evaluation as `osim eval run` composes it."""

from __future__ import annotations

from pathlib import Path

import pytest

from eval.results import LowCoverage, Results
from launch.evaluation import EvalModelConfig, EvalRunConfig, evaluate
from rl.rollout.config import RolloutConfig
from tests.rl.rollout.conftest import write_checkpoint


def test_a_failed_coverage_gate_leaves_the_results_that_there_are(tmp_path: Path) -> None:
    model = write_checkpoint(tmp_path / "hf", seed=1)
    no_time = RolloutConfig(kind="embedded", generate_timeout_s=1e-4)
    config = EvalRunConfig(
        suite="hitom_mini",
        limit=2,
        attempts=1,
        baseline_rows=0,
        model=EvalModelConfig(path=model, engine=no_time),
    )
    with pytest.raises(LowCoverage) as caught:
        evaluate(config, tmp_path / "run")
    assert caught.value.exit_code == 3
    saved = Results.load(tmp_path / "run")
    assert saved == caught.value.results
    assert saved.coverage < config.min_coverage and saved.tasks[0].unscored
