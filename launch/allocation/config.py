"""RUN/launch/allocation.json: what the job script's processes must know beside the recipe."""

from __future__ import annotations

from pathlib import Path

from common.config import Config, validate
from common.files import read_json, write_json
from launch.submit.config import Kind, PreflightConfig

FOLDER = "launch"
FILE = "allocation.json"
RECIPE = "recipe.yaml"


class AllocationConfig(Config):
    """Written at submission, read by every step."""

    kind: Kind
    gpus_per_node: int
    preflight: PreflightConfig


def write_allocation(run: Path, config: AllocationConfig) -> None:
    """Replace the file."""
    write_json(run / FOLDER / FILE, config.model_dump(mode="json"))


def read_allocation(run: Path) -> AllocationConfig:
    """Raises ConfigError when the file is not one."""
    path = run / FOLDER / FILE
    return validate(AllocationConfig, read_json(path), where=str(path))


def recipe_of(run: Path) -> Path:
    """The resolved recipe of a launched run."""
    return run / FOLDER / RECIPE
