"""A 512-rank layout without 512 machines: one rank of each pipeline stage, built on meta tensors.

Context parallelism is left out: it splits no parameter, and needs Transformer Engine.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.megatron_osim.spmd import start


@pytest.mark.slow
def test_the_stages_of_tp4_pp4_dp32_hold_the_whole_of_qwen3_8b_once(tmp_path: Path) -> None:
    start("tests.megatron_osim.large_layout_program", 1, tmp_path)
    for virtual_pipeline in (None, 3):
        stages = json.loads((tmp_path / f"{virtual_pipeline}.json").read_text())
        assert [s["stage"] for s in stages] == [0, 1, 2, 3]
        assert {s["data"] for s in stages} == {32}
        names = [name for stage in stages for name in stage["parameters"]]
        assert sorted(names) == sorted(stages[0]["whole_model"])
        for stage in stages:
            assert stage["parameters"] == stage["expected"]
