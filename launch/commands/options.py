"""Options that several verbs share, and the form of the examples."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from common.text import printable

Recipe = Annotated[Path, typer.Option("--recipe", "-r", help="YAML recipe (closed schema).", show_default=False)]
Out = Annotated[Path, typer.Option("--out", "-o", help="Run folder; an unfinished run in it is resumed.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY.PATH=VALUE]...", help="Overrides of the recipe.", show_default=False),
]


def example(*lines: str) -> dict[str, Any]:
    """The `epilog` of a verb: a runnable example, kept as it is."""
    return {"epilog": "\b\nExample:\n" + "\n".join(f"  {line}" for line in lines)}


def say(text: object, *, nl: bool = True, err: bool = False) -> None:
    """Print what may quote a model, a file or a program: nothing in it steers the terminal."""
    typer.echo(printable(str(text)), nl=nl, err=err)
