"""`osim plan`."""

from __future__ import annotations

import typer

from launch.commands.options import example, not_built_yet

app = typer.Typer()


@app.command("plan", **example("osim plan --recipe launch/recipes/midtrain.yaml"))
def plan() -> None:
    """Memory, throughput and cost of a recipe on a cluster; legal alternatives."""
    not_built_yet("plan")
