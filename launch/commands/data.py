"""`osim data …`."""

from __future__ import annotations

import typer

from launch.commands.options import example, not_built_yet

app = typer.Typer()
group = typer.Typer(no_args_is_help=True)
app.add_typer(group, name="data", help="Corpora to indexed shards and back.")


@group.command("prepare", **example("osim data prepare"))
def prepare() -> None:
    """TBD."""
    not_built_yet("data prepare")


@group.command("inspect", **example("osim data inspect"))
def inspect() -> None:
    """TBD."""
    not_built_yet("data inspect")


@group.command("verify", **example("osim data verify"))
def verify() -> None:
    """TBD."""
    not_built_yet("data verify")


@group.command("merge", **example("osim data merge"))
def merge() -> None:
    """TBD."""
    not_built_yet("data merge")


@group.command("pack", **example("osim data pack"))
def pack() -> None:
    """TBD."""
    not_built_yet("data pack")


@group.command("ground", **example("osim data ground"))
def ground() -> None:
    """TBD."""
    not_built_yet("data ground")


@group.command("decontaminate", **example("osim data decontaminate"))
def decontaminate() -> None:
    """TBD."""
    not_built_yet("data decontaminate")


@group.command("fetch", **example("osim data fetch"))
def fetch() -> None:
    """TBD."""
    not_built_yet("data fetch")
