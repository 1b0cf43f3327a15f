"""The same model trained for 20 steps under every layout (DESIGN 8, invariant 3). One start of four ranks serves all
tests."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.megatron_osim.layout_program import CASES
from tests.megatron_osim.spmd import start

# One start trains every layout: minutes where other work runs beside it.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
BASES = {"untied": "tp1", "tied": "tied_tp1", "qwen2": "qwen2_tp1", "deep": "deep_tp1", "moe": "moe_tp1"}
OTHERS = [name for name in CASES if name not in BASES.values()]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("layouts")
    start("tests.megatron_osim.layout_program", 4, folder, timeout_s=560.0)
    return folder


def read(out: Path, name: str, rank: int = 0) -> dict:
    return json.loads((out / f"{name}.rank{rank}.json").read_text())


def largest_gap(a: list[float], b: list[float]) -> float:
    return max(abs(x - y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("name", OTHERS)
def test_losses_over_20_steps_equal_those_of_one_process(out: Path, name: str) -> None:
    base = read(out, BASES[CASES[name].model])
    assert base["losses"][-1] < base["losses"][0] - 0.05
    assert largest_gap(read(out, name)["losses"], base["losses"]) < 1e-5


@pytest.mark.parametrize("name", OTHERS)
def test_gradient_norms_equal_those_of_one_process(out: Path, name: str) -> None:
    # Parameters that are split but not marked so would be counted on one tensor rank only.
    assert largest_gap(read(out, name)["norms"], read(out, BASES[CASES[name].model])["norms"]) < 1e-4


@pytest.mark.parametrize("name", OTHERS)
def test_logprobs_reach_every_rank_and_equal_those_of_one_process(out: Path, name: str) -> None:
    base = read(out, BASES[CASES[name].model])["logprobs"]
    for rank in range(CASES[name].world_size):
        for mine, theirs in zip(read(out, name, rank)["logprobs"], base, strict=True):
            assert largest_gap(mine, theirs) < 1e-5


@pytest.mark.parametrize("name", OTHERS)
def test_random_weights_and_their_export_do_not_depend_on_the_layout(out: Path, name: str) -> None:
    base = load_file(out / f"{BASES[CASES[name].model]}.initial" / "model.safetensors")
    mine = load_file(out / f"{name}.initial" / "model.safetensors")
    assert base.keys() == mine.keys()
    assert all(torch.equal(base[key], mine[key]) for key in base)


@pytest.mark.parametrize("name", list(CASES))
def test_a_trained_model_exported_and_loaded_again_is_bitwise_the_same(out: Path, name: str) -> None:
    assert all(read(out, name, rank)["round_trip"] for rank in range(CASES[name].world_size))
