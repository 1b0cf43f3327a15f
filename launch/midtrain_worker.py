"""One rank of a midtraining run that may evaluate itself by generation: `megatron_osim.worker` with the tasks.

The trainer's package may not know tasks; here rank 0 gets `osim eval run` as a function.
"""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

from common.config import load
from common.errors import Interrupted, run_main
from eval.results import LowCoverage, Results
from launch.evaluation import EvalRunConfig, evaluate
from megatron_osim.config import GenerationConfig, MidtrainConfig
from megatron_osim.evaluation import Evaluate
from megatron_osim.worker import main


def evaluation_config(config: GenerationConfig, export: Path) -> EvalRunConfig:
    """The recipe, for one export. Raises ConfigError."""
    return load(EvalRunConfig, config.recipe, (f"model.path={export}",))


def make_evaluate(config: MidtrainConfig) -> Evaluate:
    """What the trainer calls: evaluates an export and returns flat metrics."""
    generation = config.generation
    assert generation is not None

    def run(export: Path, folder: Path) -> dict[str, Any]:
        try:
            return metrics_of(evaluate(evaluation_config(generation, export), folder))
        except LowCoverage as e:
            return metrics_of(e.results)
        except Interrupted as e:
            signal.raise_signal(signal.SIGTERM)  # it was meant for the training, which saves and ends after its step
            return {"failed": str(e)}

    return run


def metrics_of(results: Results) -> dict[str, Any]:
    """Score and coverage of every task; a task without a score has coverage only."""
    out: dict[str, Any] = {"coverage": results.coverage}
    for task in results.tasks:
        values = {"coverage": task.coverage, "format_errors": task.format_errors}
        out[task.task] = values if task.estimate is None else {"score": task.estimate.value, **values}
    return out


if __name__ == "__main__":
    run_main(lambda: main(make_evaluate))
