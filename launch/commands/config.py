"""`osim config …`."""

from __future__ import annotations

import typer

from launch.commands.options import example, not_built_yet

app = typer.Typer()
group = typer.Typer(no_args_is_help=True)
app.add_typer(group, name="config", help="Recipes as the program sees them.")


@group.command("show", **example("osim config show"))
def show() -> None:
    """TBD."""
    not_built_yet("config show")


@group.command("diff", **example("osim config diff"))
def diff() -> None:
    """TBD."""
    not_built_yet("config diff")
