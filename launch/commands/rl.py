"""`osim rl`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from launch.commands.options import Out, Overrides, Recipe, example

if TYPE_CHECKING:
    from rl.config import RLConfig

app = typer.Typer()


@app.command(
    **example(
        "osim rl --recipe launch/recipes/quickstart/grpo.yaml --out runs/grpo \\",
        "    model=runs/quickstart/midtrain/hf steps=10",
        "osim rl --recipe launch/recipes/rl/cpu-verbal-feedback.yaml --task negotiate \\",
        "    --out runs/negotiate model=runs/quickstart/midtrain/hf",
    )
)
def rl(
    recipe: Recipe,
    out: Out = Path("runs/rl"),
    ranks: Annotated[int, typer.Option(help="Local actor processes; must fit `parallel`.", min=1)] = 1,
    task: Annotated[
        list[str] | None, typer.Option(help="Train on this task alone, or on these: repeat the option.")
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="Folder with published rows: DIR/TASK or DIR/TASK.* is a task's `data`.")
    ] = None,
    overrides: Overrides = None,
) -> None:
    """RL of one policy: grpo, verbal_feedback, opd, expert_sft, mixtures of tasks. Run again, it resumes."""
    from common.config import load
    from launch.training import rl as run
    from rl.config import RLConfig

    config = choose(load(RLConfig, recipe, overrides or ()), task or (), data_dir)
    done = run(config, out.absolute(), ranks)
    last = done.read_metrics("rl")[-1]
    typer.echo(f"{out}: step {last['step']}, reward {last['reward/mean']:.4f}, log-prob gap {last['gap/max']:.1e}")


def choose(config: RLConfig, names: list[str] | tuple[str, ...], data_dir: Path | None) -> RLConfig:
    """The recipe with these tasks only, and their data. Tasks it lacks get the first one's algorithm."""
    from envs import registry
    from rl.config import TaskConfig

    tasks = list(config.tasks)
    if names:
        known = {t.task: t for t in tasks}
        for name in names:
            registry.get(name)  # an unknown one is an error that names near ones
        shared = tasks[0].model_dump(include={"algorithm", "profile"})
        tasks = [known.get(name) or TaskConfig(task=name, **shared) for name in names]
    if data_dir is not None:
        tasks = [t.model_copy(update={"data": found}) if (found := _data(data_dir, t.task)) else t for t in tasks]
    return config.model_copy(update={"tasks": tuple(tasks)})


def _data(folder: Path, task: str) -> Path | None:
    return next((p for p in (folder / task, *sorted(folder.glob(f"{task}.*"))) if p.exists()), None)
