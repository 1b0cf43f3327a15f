"""Options that several verbs share, the form of the examples, and the answer of a verb that is not built yet."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from common.errors import UsageError

Recipe = Annotated[Path, typer.Option("--recipe", "-r", help="YAML recipe (closed schema).", show_default=False)]
Out = Annotated[Path, typer.Option("--out", "-o", help="Run folder; an unfinished run in it is resumed.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY.PATH=VALUE]...", help="Overrides of the recipe.", show_default=False),
]


def example(*lines: str) -> dict[str, Any]:
    """The `epilog` of a verb: a runnable example, kept as it is."""
    return {"epilog": "\b\nExample:\n" + "\n".join(f"  {line}" for line in lines)}


def not_built_yet(verb: str) -> NoReturn:
    """Exit 2 in one line."""
    raise UsageError(f"`osim {verb}` is not built yet")
