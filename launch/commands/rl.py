"""`osim rl`."""

from __future__ import annotations

import typer

from launch.commands.options import example, not_built_yet

app = typer.Typer()


@app.command("rl", **example("osim rl"))
def rl() -> None:
    """RL."""
    not_built_yet("rl")
