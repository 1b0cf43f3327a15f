"""Copies metrics to Weights & Biases, offline or online. Runs in rank 0 only; metrics.jsonl does not depend on it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

from common.errors import UsageError
from common.files import hash_json
from common.run_folder import RunFolder
from megatron_osim.config import WandbConfig


class WandbTracker:
    """One W&B run per run folder; a resumed run goes on in the same one."""

    def __init__(self, config: WandbConfig, run: RunFolder, settings: Mapping[str, Any]) -> None:
        """Raises UsageError when wandb or, online, its key is missing."""
        if config.mode == "online" and not os.environ.get("WANDB_API_KEY"):
            raise UsageError("WANDB_API_KEY is not set", where="wandb.mode", fix="set it, or use wandb.mode=offline")
        try:
            import wandb
        except ImportError:
            raise UsageError("wandb is not installed", where="wandb", fix="pip install 'osim[wandb]'") from None
        self._run = wandb.init(
            project=config.project,
            name=config.name or run.path.name,
            id=hash_json(str(run.path.absolute()))[:16],
            dir=str(run.path),
            mode=config.mode,
            resume="allow",
            config=dict(settings),
            settings=wandb.Settings(silent=True),
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
