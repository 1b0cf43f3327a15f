"""Evaluation of the weights in the middle of a run by whatever the caller passes in; this package knows no tasks.

Runs in every rank: the weights are exported together, rank 0 evaluates the export, the others wait with a deadline of
their own. An evaluation that fails (OsimError) is logged and does not end the training.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from common.errors import OsimError
from megatron_osim.config import GenerationConfig
from megatron_osim.convert import export_hf
from megatron_osim.trainer import Trainer

Evaluate = Callable[[Path, Path], Mapping[str, Any]]
"""(Hugging Face folder, folder for results) -> metrics."""


class MidRunEvaluation:
    """Built once per run, on all ranks."""

    def __init__(self, config: GenerationConfig, evaluate: Evaluate, run_dir: Path, tokenizer: Path | None) -> None:
        self.config, self.evaluate, self.folder, self.tokenizer = config, evaluate, run_dir / "evaluation", tokenizer
        # Ordinary collectives give up long before an evaluation ends.
        self._waiting = dist.new_group(backend="gloo", timeout=timedelta(seconds=config.timeout_s))

    def due(self, step: int) -> bool:
        """Whether the weights after `step` steps are evaluated."""
        return step % self.config.every_steps == 0

    def run(self, trainer: Trainer, step: int) -> Mapping[str, Any]:
        """Metrics on rank 0, nothing on the others. Collective."""
        folder = self.folder / f"step-{step:08d}"
        export = folder / "hf"
        export_hf(trainer.chunks, trainer.arch, export, self.tokenizer)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        metrics: Mapping[str, Any] = {}
        try:
            if trainer.ranks.is_first:
                metrics = self._evaluated(export, folder)
        finally:
            dist.barrier(group=self._waiting)
        return metrics

    def _evaluated(self, export: Path, folder: Path) -> Mapping[str, Any]:
        try:
            return self.evaluate(export, folder / "results")
        except OsimError as e:
            return {"failed": str(e)}
        finally:
            if not self.config.keep_exports:
                shutil.rmtree(export, ignore_errors=True)
