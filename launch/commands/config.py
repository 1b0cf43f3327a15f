"""`osim config show / diff / reference`: recipes as the program sees them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from launch.commands.options import Overrides, example, say

app = typer.Typer()
group = typer.Typer(no_args_is_help=True)
app.add_typer(group, name="config", help="Recipes as the program sees them: show, diff, reference.")
Kind = Annotated[str, typer.Argument(help="prepare, midtrain, rl, eval or quickstart.", show_default=False)]
File = Annotated[Path, typer.Argument(help="A recipe, or the config.yaml of a run.", show_default=False)]


@group.command(**example("osim config show quickstart launch/recipes/quickstart.yaml midtrain.optimizer.lr=1e-4"))
def show(kind: Kind, recipe: File, overrides: Overrides = None) -> None:
    """The resolved recipe: `extends` and overrides applied, defaults filled in, everything checked."""
    from common.config import dump_yaml
    from launch.kinds import load_recipe

    say(dump_yaml(load_recipe(kind, recipe, overrides or ())), nl=False)


@group.command(**example("osim config diff midtrain runs/a/config.yaml runs/b/config.yaml"))
def diff(kind: Kind, first: File, second: File) -> None:
    """What differs between two resolved recipes, one line a key."""
    from launch.kinds import load_recipe

    left, right = (_flat(load_recipe(kind, path).model_dump(mode="json")) for path in (first, second))
    absent = "(absent)"
    for key in sorted(left.keys() | right.keys()):
        a, b = left.get(key, absent), right.get(key, absent)
        if a != b:
            say(f"{key}: {a} → {b}")


@group.command(**example("osim config reference"))
def reference() -> None:
    """Every key of every kind of recipe, as Markdown."""
    from launch.reference import reference as page

    say(page(), nl=False)


def _flat(value: object, path: str = "") -> dict[str, object]:
    if isinstance(value, dict) and value:
        return {k: v for key, child in value.items() for k, v in _flat(child, f"{path}.{key}".lstrip(".")).items()}
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return {k: v for n, child in enumerate(value) for k, v in _flat(child, f"{path}.{n}").items()}
    return {path: value}
