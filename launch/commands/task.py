"""`osim task …`."""

from __future__ import annotations

import typer

from launch.commands.options import example, not_built_yet

app = typer.Typer()
group = typer.Typer(no_args_is_help=True)
app.add_typer(group, name="task", help="The task registry.")


@group.command("list", **example("osim task list"))
def list() -> None:
    """TBD."""
    not_built_yet("task list")


@group.command("check", **example("osim task check"))
def check() -> None:
    """TBD."""
    not_built_yet("task check")


@group.command("golden", **example("osim task golden"))
def golden() -> None:
    """TBD."""
    not_built_yet("task golden")


@group.command("play", **example("osim task play"))
def play() -> None:
    """TBD."""
    not_built_yet("task play")
