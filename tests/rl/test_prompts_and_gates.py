"""Prompt draws are a function of (seed, step); gates say what broke."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from common.errors import GateError, UsageError
from envs.tasks.humanual.task import EXAMPLES
from envs.types import FailureReason, Row, Unscored
from rl.config import GateConfig, TaskConfig
from rl.gates import LogprobGap, check_failures, check_gap, largest_gaps, measure_gap
from rl.prompts import PromptStream, Source
from rl.samples import sample_of
from tests.rl.algorithms.builders import rollout


def source(task: str, n: int, weight: float = 1.0) -> Source:
    return Source(task, weight, tuple(Row(task, str(i), str(i), {}) for i in range(n)))


def test_any_order_of_steps_draws_the_same_prompts() -> None:
    forward, backward = (PromptStream([source("a", 7), source("b", 5)], groups_per_step=3, seed=1) for _ in range(2))
    steps = [forward.draw(s) for s in range(10)]
    assert [backward.draw(s) for s in reversed(range(10))] == steps[::-1]
    assert PromptStream([source("a", 7), source("b", 5)], groups_per_step=3, seed=2).draw(0) != steps[0]


def test_every_row_is_drawn_once_per_epoch() -> None:
    stream = PromptStream([source("a", 6)], groups_per_step=4, seed=0)
    drawn = [row.id for step in range(6) for _, row in stream.draw(step)]
    for epoch in range(4):
        assert sorted(drawn[epoch * 6 : epoch * 6 + 6]) == [str(i) for i in range(6)]


def test_tasks_share_slots_by_weight() -> None:
    stream = PromptStream([source("a", 3, 3.0), source("b", 3, 1.0)], groups_per_step=8, seed=0)
    for step in range(3):
        assert Counter(task for task, _ in stream.draw(step)) == {"a": 6, "b": 2}


def test_a_task_without_rows_is_refused() -> None:
    with pytest.raises(UsageError, match="no rows"):
        PromptStream([source("a", 0)], groups_per_step=1, seed=0)


def test_the_gap_is_measured_on_sampled_tokens_only() -> None:
    s = sample_of(rollout("p", "e", 1.0))
    old = np.where(s.trainable, -0.5, 99.0).astype(np.float32)
    old[-1] = -0.3
    gap = measure_gap([replace(s, old_logprobs=old), replace(s, rollout_logprobs=None, old_logprobs=old * 7)])
    assert gap.tokens == 4 and gap.max == pytest.approx(0.2) and gap.mean == pytest.approx(0.05)


@pytest.mark.parametrize("value", [0.2, float("nan")])
def test_a_gap_above_its_bound_or_not_a_number_stops_the_run(value: float) -> None:
    s = sample_of(rollout("p", "e", 1.0))
    gap = measure_gap([replace(s, old_logprobs=s.spread(-0.5 + value))])
    with pytest.raises(GateError):
        check_gap(gap, GateConfig(max_logprob_gap=0.1), where="step 0")
    check_gap(measure_gap([]), GateConfig(), where="nothing to compare")


def test_a_gap_that_names_no_token_stops_the_run_too() -> None:
    with pytest.raises(GateError):
        check_gap(LogprobGap(4, 0.2, 0.05, 0.0), GateConfig(max_logprob_gap=0.1), where="step 0")


@pytest.mark.parametrize("value", [0.2, float("nan")])
def test_the_gap_gate_names_the_worst_token_with_both_log_probs(value: float) -> None:
    first, second = (sample_of(rollout("p", name, 1.0)) for name in ("e1", "e2"))
    position = int(np.flatnonzero(second.trainable)[-1])
    old = second.spread(-0.5)
    old[position] += value
    unseen = replace(first, rollout_logprobs=None, old_logprobs=first.spread(-9.0))
    batch = [replace(first, old_logprobs=first.spread(-0.5)), unseen, replace(second, old_logprobs=old)]
    with pytest.raises(GateError) as caught:
        check_gap(
            measure_gap(batch), GateConfig(max_logprob_gap=0.1), where="step 0", evidence=lambda w: f"; {w.index}!"
        )
    token = f"position {position} of {len(second.ids)}, token id {second.ids[position]}"
    assert f"sample 2, episode e2, seat {second.seat}, {token}" in str(caught.value)
    assert f"engine -0.5000000 (weights {second.version}), trainer {-0.5 + value:.7f}; 2!" in str(caught.value)
    worst, other = largest_gaps(batch)
    assert (worst.index, other.index) == (2, 0) and worst.positions == np.flatnonzero(second.trainable).tolist()
    assert worst.token_ids[-1] == second.ids[position] and worst.engine[-1] == -0.5


def test_failures_are_listed_by_reason_above_the_share() -> None:
    failures = [Unscored(FailureReason.JUDGE_FAILED, "quota"), Unscored(FailureReason.TIMEOUT, "slow")]
    check_failures(failures, 20, GateConfig(max_failure_share=0.1), where="step 1")
    with pytest.raises(GateError, match="1 judge_failed") as caught:
        check_failures(failures, 19, GateConfig(max_failure_share=0.1), where="step 1")
    assert "quota" in str(caught.value)


def test_task_that_ships_no_rows_reads_those_that_its_configuration_names(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in EXAMPLES))
    task = TaskConfig(task="humanual_chat", data=path)
    assert len(list(task.resolve().rows("train", None, 0))) == len(EXAMPLES)
    with pytest.raises(UsageError, match="makes its own rows"):
        TaskConfig(task="negotiate", data=path).resolve()
