"""Stage h: the same held-out questions before midtraining, after it and after each RL run.

"Before" is the very model that midtraining starts from: weights that depend on seed and tensor name alone.
"""

from __future__ import annotations

from pathlib import Path

from eval.results import Results
from eval.stats import Estimate
from launch.quickstart.config import Folders, QuickstartConfig
from launch.quickstart.pipeline import Summary

BEFORE, MIDTRAINED = "before", "midtrained"


def run_eval_before(config: QuickstartConfig, folders: Folders) -> Summary:
    """Write the initial weights and evaluate them."""
    from launch.conversion import random_to_hf

    model = folders.evaluation(BEFORE) / "model"
    if not model.exists():
        random_to_hf(config.midtrain, model)
    return _evaluate(config, folders, BEFORE, model, "before midtraining")


def run_eval_midtrained(config: QuickstartConfig, folders: Folders) -> Summary:
    """Evaluate the midtrained export."""
    return _evaluate(config, folders, MIDTRAINED, folders.model, "after midtraining")


def run_eval_rl(name: str, config: QuickstartConfig, folders: Folders) -> Summary:
    """Evaluate the export of one RL run."""
    return _evaluate(config, folders, name, folders.rl(name) / "hf", f"after {name}")


def _evaluate(config: QuickstartConfig, folders: Folders, stage: str, model: Path, label: str) -> Summary:
    from launch.evaluation import evaluate
    from launch.progress import show

    chosen = config.eval.model.model_copy(update={"path": model})
    asked = config.eval.model_copy(update={"name": label, "model": chosen})
    with show(f"evaluating {label}") as update:
        results = evaluate(asked, folders.evaluation(stage), lambda p: update(p.done, p.planned, p.line()))
    return summarise_results(results)


def summarise_results(results: Results) -> Summary:
    """Accuracy with its interval and coverage; orders and baselines are in the final table."""
    (task,) = results.tasks
    return {
        "accuracy": interval(task.estimate),
        "scored": f"{task.scored} of {task.planned}",
        "format errors": str(task.format_errors),
    }


def interval(estimate: Estimate | None) -> str:
    """Value [low, high]."""
    return f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]" if estimate else "none"
