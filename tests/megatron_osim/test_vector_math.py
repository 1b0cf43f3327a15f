"""MKL chooses a function's kernel in its first call, and two threads that race for it may get a worse one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from common.files import read_json
from megatron_osim.vector_math import FUNCTIONS, choose_kernels
from tests.first_calls import FirstCalls
from tests.megatron_osim.spmd import start


def test_every_function_is_called_on_one_number_in_both_precisions() -> None:
    with FirstCalls() as calls:
        choose_kernels()
        torch.cos(torch.zeros(70_000))
    assert calls.elements == {f"{name} {dtype}": 1 for name in FUNCTIONS for dtype in ("float32", "float64")}


@pytest.mark.slow
def test_no_two_threads_make_the_first_call_of_a_function_in_a_training_process(tmp_path: Path) -> None:
    """The first one is the cosine of the rotary embedding; half of it was once wrong in the fourth digit."""
    start("tests.megatron_osim.first_calls_program", 1, tmp_path)
    elements = read_json(tmp_path / "elements.json")
    assert {"cos float32", "sin float32"} <= elements.keys()
    assert set(elements.values()) == {1}, elements
