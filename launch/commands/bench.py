"""`osim bench`."""

from __future__ import annotations

import typer

from launch.commands.options import example, not_built_yet

app = typer.Typer()


@app.command("bench", **example("osim bench"))
def bench() -> None:
    """The benchmarks of tests/bench, side by side in one run."""
    not_built_yet("bench")
