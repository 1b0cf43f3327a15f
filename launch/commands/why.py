"""`osim why`."""

from __future__ import annotations

import typer

from launch.commands.options import example, not_built_yet

app = typer.Typer()


@app.command("why", **example("osim why runs/quickstart"))
def why() -> None:
    """What a running or stuck run is waiting for."""
    not_built_yet("why")
