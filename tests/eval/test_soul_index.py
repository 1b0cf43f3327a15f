"""The index: mean over axes of task means; the axes are not weighted by how many rows or tasks they have."""

from __future__ import annotations

import pytest

from eval.soul_index import AXES, axis_of, family, soul_index
from eval.stats import JointBootstrap
from eval.suites import SOUL_CORE, SOUL_TASKS
from tests.eval.samples import make_task

BOOTSTRAP = JointBootstrap(0, draws=400)


def test_suite_has_27_files_which_are_23_tasks_on_5_axes() -> None:
    assert len(SOUL_TASKS) == 27
    assert {family(t) for t in SOUL_TASKS} == {t for tasks in AXES.values() for t in tasks}
    assert sum(len(tasks) for tasks in AXES.values()) == 23 and len(AXES) == 5
    assert all(axis_of(t) for t in SOUL_TASKS) and len(SOUL_CORE) == 10 and set(SOUL_CORE) < set(SOUL_TASKS)


def test_index_is_the_mean_over_axes_and_micro_the_mean_over_rows() -> None:
    index = soul_index(
        [
            make_task([1.0] * 10, task="sotopia"),
            make_task([0.0] * 30, task="hitom"),
            make_task([1.0, 0.0] * 15, task="fantom"),
        ],
        BOOTSTRAP,
    )
    assert index is not None
    assert index.estimate.value == pytest.approx((1.0 + (0.0 + 0.5) / 2) / 2)
    assert index.micro.value == pytest.approx((10 + 0 + 15) / 70)
    assert index.estimate.low < index.estimate.value < index.estimate.high
    assert {a.axis for a in index.axes} == {"SS", "COG"} and not index.complete
    assert "mirrorbench" in index.missing and "2 of 5 axes" in index.definition


def test_alignx_files_count_as_one_task() -> None:
    tasks = [make_task([1.0] * 8, task=t) for t in ("alignx_demo", "alignx_pair")] + [
        make_task([0.0] * 8, task="humanllm")
    ]
    index = soul_index(tasks, BOOTSTRAP)
    assert index is not None and index.estimate.value == pytest.approx(0.5)


def test_lower_is_better_is_reversed_and_tasks_outside_soul_are_left_out() -> None:
    index = soul_index([make_task([0.2] * 8, direction="lower"), make_task([0.0] * 8, task="mmtom")], BOOTSTRAP)
    assert index is not None and index.estimate.value == pytest.approx(0.8)
    assert soul_index([make_task([0.5] * 8, task="mmtom")], BOOTSTRAP) is None


def test_full_suite_is_complete() -> None:
    index = soul_index([make_task([0.5, 0.7, 0.6], task=t) for t in SOUL_TASKS], BOOTSTRAP)
    assert index is not None and index.complete and index.estimate.value == pytest.approx(0.6)
