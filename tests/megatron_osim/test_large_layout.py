"""A 512-rank layout without 512 machines: single ranks of it, built on meta tensors and compared with the whole
model."""

from __future__ import annotations

import json
from collections import defaultdict
from math import prod
from pathlib import Path

import pytest

from megatron_osim.convert.mapping import Column, GatedColumn, Replicated, Row, global_names, rule_for
from tests.megatron_osim.large_layout_program import ARCH, CONTEXT, DATA, PIPELINE, TENSOR
from tests.megatron_osim.spmd import start


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("large")
    start("tests.megatron_osim.large_layout_program", 1, folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("virtual_pipeline", [None, 3])
def test_ranks_of_tp4_pp4_cp2_dp16_hold_shards_of_the_single_rank_model(
    out: Path, virtual_pipeline: int | None
) -> None:
    whole = json.loads((out / "whole.json").read_text())
    assert sorted(whole) == sorted(global_names(ARCH))
    # One rank pads as 512 do, so counts are comparable.
    assert sum(map(prod, whole.values())) == ARCH.num_parameters
    ranks = json.loads((out / f"{virtual_pipeline}.json").read_text())
    assert {(r["stage"], r["tensor"]) for r in ranks} == {(s, t) for s in range(PIPELINE) for t in range(TENSOR)}
    assert {r["context"] for r in ranks} == {0, 1}
    assert {(r["context_size"], r["data_size"]) for r in ranks} == {(CONTEXT, DATA)} == {(2, 16)}
    shards: dict[str, list[list[int]]] = defaultdict(list)
    for rank in ranks:
        for name, shape in rank["parameters"].items():
            shards[name].append(shape)
    assert shards.keys() == whole.keys()
    for name, shapes in shards.items():
        assert shapes == [expected_shard(name, whole[name])] * TENSOR, name
    copies = sum(prod(whole[name]) for name in whole if isinstance(rule_for(ARCH, name), Replicated))
    held = sum(prod(shape) for shapes in shards.values() for shape in shapes)
    assert held == ARCH.num_parameters + (TENSOR - 1) * copies


def expected_shard(name: str, full: list[int]) -> list[int]:
    """A quarter of the dimension that the kind of parameter is split along."""
    rule = rule_for(ARCH, name)
    assert isinstance(rule, (Column, GatedColumn, Replicated, Row))
    if isinstance(rule, Replicated):
        return full
    dim = 1 if isinstance(rule, Row) else 0
    return [n // TENSOR if i == dim else n for i, n in enumerate(full)]
