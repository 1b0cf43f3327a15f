"""`osim launch`."""

from __future__ import annotations

import typer

from launch.commands.options import example, not_built_yet

app = typer.Typer()


@app.command(
    "launch", **example("osim launch --recipe launch/recipes/midtrain.yaml --cluster cluster.yaml --dry-run")
)
def submit() -> None:
    """Submit a recipe through NeMo-Run: local, Slurm, Slurm over SSH."""
    not_built_yet("launch")
