"""`osim quickstart`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from launch.commands.options import Out, Overrides, example

app = typer.Typer()


@app.command(**example("osim quickstart --fast", "osim quickstart --out runs/mine midtrain.steps=200"))
def quickstart(
    fast: Annotated[bool, typer.Option("--fast", help="Fewer steps and questions: at most five minutes.")] = False,
    recipe: Annotated[Path | None, typer.Option("--recipe", "-r", help="Your own recipe (closed schema).")] = None,
    out: Out = Path("runs/quickstart"),
    overrides: Overrides = None,
) -> None:
    """The whole pipeline on this machine: data, shards, midtraining, export, engine, RL, evaluation, report.

    Run again on the same folder, it resumes what is unfinished and repeats nothing. `engine` chooses what serves the
    RL rollouts; evaluations always use the embedded engine, whatever it says.
    """
    from launch.kinds import shipped
    from launch.quickstart.run import run

    chosen = recipe or shipped("quickstart-fast.yaml" if fast else "quickstart.yaml")
    run(chosen, overrides or (), out.absolute())
