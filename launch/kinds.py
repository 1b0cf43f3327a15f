"""The kinds of recipe, and the closed model that each is read into. Models are imported when asked for."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel

from common.config import load, read_recipe
from common.errors import UsageError

if TYPE_CHECKING:
    from megatron_osim.config import MidtrainConfig

KINDS = {
    "prepare": "data_tools.config:PrepareConfig",
    "midtrain": "megatron_osim.config:MidtrainConfig",
    "rl": "rl.config:RLConfig",
    "eval": "launch.evaluation:EvalRunConfig",
    "quickstart": "launch.quickstart.config:QuickstartConfig",
}
RECIPE_OF = {"data": "prepare", "midtrain": "midtrain", "rl": "rl", "eval": "eval"}
"""The kind of recipe of each kind of job that has one."""


def model_of(kind: str) -> type[BaseModel]:
    """The configuration model of a kind of recipe."""
    if kind not in KINDS:
        near = difflib.get_close_matches(kind, KINDS, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise UsageError(f"no such kind of recipe: {kind!r}", fix=f"{hint}known: {', '.join(KINDS)}")
    module, _, name = KINDS[kind].partition(":")
    model: type[BaseModel] = getattr(importlib.import_module(module), name)
    return model


def midtrain_worker(config: MidtrainConfig) -> str:
    """The module of a midtraining rank: the trainer's own knows no tasks to evaluate the weights on."""
    return "launch.midtrain_worker" if config.generation else "megatron_osim.worker"


def kind_of(path: Path) -> str:
    """The kind whose keys a recipe has; a recipe does not name its kind."""
    keys = set(read_recipe(path))
    shared = {kind: len(keys & set(model_of(kind).model_fields)) for kind in KINDS}
    best = max(shared.values())
    found = [kind for kind, count in shared.items() if count == best]
    if best == 0 or len(found) > 1:
        raise UsageError(
            "cannot tell what kind of recipe this is", where=str(path), fix=f"name it: --kind {' or '.join(KINDS)}"
        )
    return found[0]


def load_recipe(kind: str, path: Path, overrides: Sequence[str] = ()) -> BaseModel:
    """A recipe of any kind, resolved. A quickstart's paths are shown for the run folder RUN."""
    model = model_of(kind)
    if kind == "quickstart" and path.name != "config.yaml":
        from launch.quickstart.config import resolve

        return resolve(path, overrides, Path("RUN"))
    return load(model, path, overrides)


def shipped(name: str) -> Path:
    """A recipe that comes with osim."""
    return Path(__file__).resolve().parent / "recipes" / name
