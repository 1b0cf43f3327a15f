"""`osim midtrain`."""

from __future__ import annotations

import typer

from launch.commands.options import example, not_built_yet

app = typer.Typer()


@app.command("midtrain", **example("osim midtrain"))
def midtrain() -> None:
    """Behavioural midtraining / SFT on indexed shards."""
    not_built_yet("midtrain")
