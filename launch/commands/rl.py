"""`osim rl`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from launch.commands.options import Out, Overrides, Recipe, example

app = typer.Typer()


@app.command(
    **example(
        "osim rl --recipe launch/recipes/quickstart/grpo.yaml --out runs/grpo \\",
        "    model=runs/quickstart/midtrain/hf steps=10",
    )
)
def rl(
    recipe: Recipe,
    out: Out = Path("runs/rl"),
    ranks: Annotated[int, typer.Option(help="Local actor processes; must fit `parallel`.", min=1)] = 1,
    overrides: Overrides = None,
) -> None:
    """RL of one policy: grpo, verbal_feedback, opd, expert_sft, mixtures of tasks. Run again, it resumes."""
    from common.config import load
    from launch.training import rl as run
    from rl.config import RLConfig

    done = run(load(RLConfig, recipe, overrides or ()), out.absolute(), ranks)
    last = done.read_metrics("rl")[-1]
    typer.echo(f"{out}: step {last['step']}, reward {last['reward/mean']:.4f}, log-prob gap {last['gap/max']:.1e}")
