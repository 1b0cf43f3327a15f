"""Layouts over NCCL, one GPU per rank: fp32 against one process (local layers), and CP over Transformer Engine."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch

from tests.megatron_osim.layout_program import CASES
from tests.megatron_osim.spmd import start

pytestmark = pytest.mark.gpu
WANTED = (
    "tp1",
    "tp2",
    "tp2_sp",
    "pp2",
    "pp2_vp2",
    "dp2_distributed_optimizer",
    "dp2_overlap",
    "cp2",
    "moe_tp1",
    "moe_ep2",
)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if torch.cuda.device_count() < 2:
        pytest.skip("layouts over NCCL need two GPUs")
    folder = tmp_path_factory.mktemp("nccl")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(os.environ, "CASES", ",".join(WANTED))
        start("tests.megatron_osim.layout_program", 2, folder)
    return folder


@pytest.mark.parametrize("name", [name for name in WANTED if not name.endswith("tp1")])
def test_losses_over_nccl_equal_those_of_one_process(out: Path, name: str) -> None:
    base = "moe_tp1" if name.startswith("moe") else "tp1"
    mine, theirs = (json.loads((out / f"{n}.rank0.json").read_text()) for n in (name, base))
    assert CASES[name].world_size == 2
    assert mine["losses"] == pytest.approx(theirs["losses"], abs=1e-4)
    assert mine["round_trip"]


@pytest.mark.usefixtures("transformer_engine")
def test_context_parallelism_of_transformer_engine_scores_as_one_rank(tmp_path: Path) -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("context parallelism needs two GPUs")
    start("tests.gpu.context_program", 2, tmp_path)
    found = json.loads((tmp_path / "scores.json").read_text())
    assert found["gap"] < 0.05
    assert found["losses"] == pytest.approx(found["one"], abs=0.02)
