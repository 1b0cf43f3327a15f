"""`osim view`."""

from __future__ import annotations

import typer

from launch.commands.options import example, not_built_yet

app = typer.Typer()


@app.command("view", **example("osim view runs/quickstart"))
def view() -> None:
    """Serve a run's report and transcript viewer."""
    not_built_yet("view")
