"""The same metrics in Weights & Biases, beside metrics.jsonl. Runs on rank 0; wandb is an extra: osim[wandb].

Offline by default: the files lie in RUN/logs/wandb and `wandb sync` uploads them. A resumed run has the same id, so
its parts become one curve. The key comes from WANDB_API_KEY alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from common.config import Config
from common.errors import UsageError


class WandbConfig(Config):
    """Where the run is shown."""

    project: str = "osim"
    entity: str | None = None
    mode: Literal["offline", "online"] = "offline"
    tags: tuple[str, ...] = ()


class Tracker:
    """One run in W&B. Raises UsageError where wandb is not installed."""

    def __init__(self, config: WandbConfig, run_dir: Path, resolved: BaseModel) -> None:
        try:
            import wandb
        except ImportError as e:
            raise UsageError("wandb is not installed", where="wandb", fix="pip install 'osim[wandb]'") from e
        folder = run_dir / "logs"
        folder.mkdir(parents=True, exist_ok=True)
        self._run: Any = wandb.init(
            project=config.project,
            entity=config.entity,
            mode=config.mode,
            tags=list(config.tags),
            name=run_dir.name,
            id=hashlib.blake2b(str(run_dir.resolve()).encode(), digest_size=8).hexdigest(),
            resume="allow" if config.mode == "online" else None,
            dir=folder,
            config=resolved.model_dump(mode="json"),
            settings=wandb.Settings(console="off", silent=True),
        )

    def log(self, step: int, metrics: Mapping[str, float | int]) -> None:
        self._run.log(dict(metrics), step=step)

    def close(self) -> None:
        self._run.finish()
