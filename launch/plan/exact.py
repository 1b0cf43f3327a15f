"""Bytes between steps as the trainer itself holds them: starts `python -m megatron_osim.footprint`, which builds it
on meta tensors. Where torch is not installed there is no answer, and the planner's own formulas stand.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from common.errors import OsimError
from launch.plan.training import Candidate, TrainingWork

TIMEOUT_S = 300.0


@dataclass(frozen=True)
class Exact:
    """One rank of a pipeline stage, in bytes."""

    parameters: int
    weights: int
    gradients: int
    optimizer: int

    @property
    def state(self) -> int:
        """What stays between steps."""
        return self.weights + self.gradients + self.optimizer


def can_count() -> bool:
    """Whether the trainer is installed here."""
    return all(importlib.util.find_spec(name) for name in ("torch", "megatron"))


def count(work: TrainingWork, candidates: Sequence[Candidate]) -> list[tuple[Exact, ...]]:
    """By candidate: the first replica's rank of each pipeline stage. Raises OsimError when the trainer cannot be
    built."""
    jobs = [
        {
            "architecture": work.arch.model_dump(mode="json"),
            "parallel": c.parallel.model_dump(mode="json"),
            "world_size": work.world_size,
            "precision": work.precision,
            "lora": work.lora.model_dump(mode="json") if work.lora else None,
        }
        for c in candidates
    ]
    # Where a GPU is visible Megatron would allocate on it.
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "megatron_osim.footprint"],
        input=json.dumps({"jobs": jobs}),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        env=environment,
        check=False,
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise OsimError(f"the model cannot be built for this layout: {last}", fix="choose another layout")
    fields = ("parameters", "weights", "gradients", "optimizer")
    return [
        tuple(Exact(**{name: stage[name] for name in fields}) for stage in stages)
        for stages in json.loads(done.stdout)["stages"]
    ]
