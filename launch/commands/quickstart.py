"""`osim quickstart`."""

from __future__ import annotations

import typer

from launch.commands.options import example, not_built_yet

app = typer.Typer()


@app.command("quickstart", **example("osim quickstart --fast"))
def quickstart() -> None:
    """The whole pipeline on this machine."""
    not_built_yet("quickstart")
