"""Metrics in Weights & Biases, beside metrics.jsonl, which does not depend on it. Runs on rank 0 of any run.

Needs the package wandb (extra `wandb`). Offline by default: the files lie in RUN/logs/wandb and `wandb sync` uploads
them. A run folder is one W&B run: its id is the folder's, so the parts of a resumed run become one curve. The key
comes from WANDB_API_KEY alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from pydantic import BaseModel

from common.config import Config
from common.errors import UsageError
from common.files import hash_json
from common.run_folder import RunFolder


class WandbConfig(Config):
    """Copy the metrics to Weights & Biases (extra `wandb`). metrics.jsonl is written in any case."""

    project: str = "osim"
    """Project in Weights & Biases."""
    entity: str | None = None
    """Team or user; null: the key's own."""
    name: str | None = None
    """Null: the name of the run folder."""
    tags: tuple[str, ...] = ()
    """Tags of the run."""
    mode: Literal["offline", "online"] = "offline"
    """offline: files in RUN/logs/wandb, for `wandb sync` later; online: WANDB_API_KEY must be set."""


class WandbTracker:
    """One open W&B run. Raises UsageError when wandb or, online, its key is missing."""

    def __init__(self, config: WandbConfig, run: RunFolder, settings: BaseModel) -> None:
        online = config.mode == "online"
        if online and not os.environ.get("WANDB_API_KEY"):
            raise UsageError("WANDB_API_KEY is not set", where="wandb.mode", fix="set it, or use wandb.mode=offline")
        try:
            import wandb
        except ImportError:
            raise UsageError("wandb is not installed", where="wandb", fix="pip install 'osim[wandb]'") from None
        run.logs.mkdir(parents=True, exist_ok=True)
        self._run: Any = wandb.init(
            project=config.project,
            entity=config.entity,
            name=config.name or run.path.name,
            id=hash_json(str(run.path.resolve()))[:16],
            tags=list(config.tags),
            mode=config.mode,
            resume="allow" if online else None,
            dir=str(run.logs),
            config=settings.model_dump(mode="json"),
            settings=wandb.Settings(console="off", silent=True),
        )
        # Steps of a resumed run may be logged again, which W&B's own step counter refuses.
        self._run.define_metric("*", step_metric="step")

    def log(self, step: int, phase: str, values: Mapping[str, Any]) -> None:
        """One line of metrics; nested mappings become path/names, what is no number is left out."""
        self._run.log({"step": step, **{f"{phase}/{name}": value for name, value in _numbers(values)}})

    def close(self) -> None:
        """Write out what is buffered."""
        self._run.finish()


def _numbers(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{prefix}{name}/")
        elif isinstance(value, (int, float)):
            yield f"{prefix}{name}", value
