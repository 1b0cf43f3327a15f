"""`osim serve`."""

from __future__ import annotations

import typer

from launch.commands.options import example, not_built_yet

app = typer.Typer()


@app.command("serve", **example("osim serve"))
def serve() -> None:
    """Rollout server."""
    not_built_yet("serve")
