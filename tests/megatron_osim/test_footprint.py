"""Bytes counted on meta tensors are those of the real trainer, on every layout."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from common.files import read_json
from launch.plan.memory import MAX_LOGITS as PLANNED_LOGITS
from launch.plan.memory import rank_memory
from launch.plan.training import TrainingWork
from megatron_osim.footprint import Answer, Footprint, Request
from megatron_osim.losses import MAX_LOGITS
from tests.megatron_osim.footprint_program import JOBS
from tests.megatron_osim.spmd import ROOT, start

STEP_COUNT_BYTES = 4


@pytest.fixture(scope="module")
def counted() -> dict[str, tuple[Footprint, ...]]:
    request = Request(jobs=tuple(JOBS.values())).model_dump_json()
    command = [sys.executable, "-W", "ignore", "-m", "megatron_osim.footprint"]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, input=request, capture_output=True, text=True, timeout=240, cwd=ROOT, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(zip(JOBS, Answer.model_validate_json(done.stdout).stages, strict=True))


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("footprint")
    start("tests.megatron_osim.footprint_program", 2, out)
    return out


@pytest.mark.slow
@pytest.mark.parametrize("name", JOBS)
def test_counted_bytes_equal_those_of_the_real_trainer(
    name: str, counted: dict[str, tuple[Footprint, ...]], real: Path
) -> None:
    for stage, expected in enumerate(counted[name]):
        assert Footprint.model_validate(read_json(real / f"{name}-{stage}.json")) == expected


@pytest.mark.slow
@pytest.mark.parametrize("name", JOBS)
def test_formulas_of_the_planner_differ_only_by_padding_and_step_counts(
    name: str, counted: dict[str, tuple[Footprint, ...]]
) -> None:
    job = JOBS[name]
    work = TrainingWork(job.architecture, job.precision, 64, None, job.world_size, job.lora)
    memory = rank_memory(work.workload(job.parallel))
    fullest = max(counted[name], key=lambda f: f.weights + f.gradients + f.optimizer)
    # Small models: buffers are padded to 64 elements a tensor, and torch's AdamW counts steps per tensor.
    tensors = 200
    assert 0 <= fullest.weights - memory.weights <= tensors * 64 * 4
    assert 0 <= fullest.gradients - memory.gradients <= tensors * 64 * 4
    assert abs(fullest.optimizer - memory.optimizer) <= tensors * (64 * 12 + STEP_COUNT_BYTES)


def test_planner_knows_the_chunk_of_the_loss() -> None:
    assert PLANNED_LOGITS == MAX_LOGITS
