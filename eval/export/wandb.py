"""Weights & Biases: a scalar per task, intervals, coverage, a table of episodes, the report as an artefact.

Offline unless told otherwise: the run folder of W&B lies in FOLDER/wandb and `wandb sync` sends it later. Needs the
package wandb (extra `wandb`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from common.errors import UsageError
from envs.types import Episode
from eval.results import Results

EPISODES = 50
"""In the table; evenly spaced over the tasks."""


def export_wandb(
    results: Results,
    folder: Path,
    episodes: Mapping[str, Episode],
    *,
    project: str = "osim",
    mode: Literal["offline", "online"] = "offline",
    report: Path | None = None,
) -> Path:
    """Log one finished evaluation; returns the folder of the W&B run. Raises UsageError without the package."""
    try:
        import wandb
    except ImportError as e:
        raise UsageError("the package wandb is not installed", fix="pip install 'osim[wandb]'") from e
    folder.mkdir(parents=True, exist_ok=True)
    config = {"model": results.model, "plan": results.plan, "seed": results.seed, "profile": results.profile}
    run = wandb.init(
        project=project,
        name=results.name,
        dir=str(folder),
        mode=mode,
        config={**config, **results.provenance},
        job_type="eval",
        settings=wandb.Settings(console="off", silent=True),
    )
    try:
        run.summary.update(scalars(results))
        run.log({**scalars(results), "eval/episodes": _table(wandb, results, episodes)})
        if report is not None:
            artifact = wandb.Artifact(f"report-{results.plan[:8]}", type="report")
            artifact.add_file(str(report))
            run.log_artifact(artifact)
        return Path(run.dir).parent
    finally:
        run.finish()


def scalars(results: Results) -> dict[str, float]:
    """eval/TASK/METRIC with its interval and coverage, and the index."""
    out: dict[str, float] = {}
    for t in results.tasks:
        out[f"eval/{t.task}/coverage"] = t.coverage
        if t.estimate is not None:
            name = f"eval/{t.task}/{t.metric}"
            out |= {name: t.estimate.value, f"{name}/low": t.estimate.low, f"{name}/high": t.estimate.high}
    if results.index is not None:
        e = results.index.estimate
        out |= {"eval/soul_index": e.value, "eval/soul_index/low": e.low, "eval/soul_index/high": e.high}
    return out


def _table(wandb: object, results: Results, episodes: Mapping[str, Episode]) -> object:
    items = [(t, i) for t in results.tasks for i in t.items]
    chosen = [items[k * len(items) // EPISODES] for k in range(EPISODES)] if len(items) > EPISODES else items
    table = wandb.Table(columns=["task", "row", "epoch", "score", "unscored", "said"])  # type: ignore[attr-defined]
    for task, item in chosen:
        episode = episodes.get(item.key)
        said = "\n".join(f"{s.seat}: {s.text}" for s in episode.says) if episode else ""
        table.add_data(task.task, item.row, item.epoch, item.value, item.reason, said)
    return table
