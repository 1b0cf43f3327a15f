"""`osim eval …`."""

from __future__ import annotations

import typer

from launch.commands.options import example, not_built_yet

app = typer.Typer()
group = typer.Typer(no_args_is_help=True)
app.add_typer(group, name="eval", help="The SOUL suite: run, compare, rescore, report.")


@group.command("run", **example("osim eval run"))
def run() -> None:
    """TBD."""
    not_built_yet("eval run")


@group.command("compare", **example("osim eval compare"))
def compare() -> None:
    """TBD."""
    not_built_yet("eval compare")


@group.command("rescore", **example("osim eval rescore"))
def rescore() -> None:
    """TBD."""
    not_built_yet("eval rescore")


@group.command("report", **example("osim eval report"))
def report() -> None:
    """TBD."""
    not_built_yet("eval report")
