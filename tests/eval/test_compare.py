"""Comparisons pair what is the same, correct for many tasks, and say what they cannot see."""

from __future__ import annotations

import numpy as np
import pytest

from common.errors import UsageError
from eval.compare import compare, compare_all
from eval.results import Results
from tests.eval.samples import make_results, make_task


def test_difference_is_after_minus_before_on_pairs_only() -> None:
    a = make_results("a", make_task([0, 0, 1, 1, None, 1], run="a"))
    b = make_results("b", make_task([1, 0, 1, 0, 1, None], run="b"))
    task = compare(a, b).tasks[0]
    assert (task.difference.n, task.unpaired) == (4, 2)
    assert task.difference.value == pytest.approx(0.0)
    assert (task.only_after, task.only_before) == (1, 1)
    assert {(f.row, f.key_before, f.key_after) for f in task.flips} == {
        ("row-0", "a-0", "b-0"),
        ("row-3", "a-3", "b-3"),
    }


def test_large_difference_is_better_small_one_inconclusive_with_the_pairs_needed() -> None:
    rng = np.random.default_rng(0)
    base = (rng.random(200) < 0.3).astype(float)
    clearly = np.maximum(base, (rng.random(200) < 0.4).astype(float))
    slightly = base.copy()
    slightly[:6] = 1 - slightly[:6]
    a = make_results("a", make_task(base.tolist(), run="a"))
    better = compare(a, make_results("b", make_task(clearly.tolist(), run="b"))).tasks[0]
    assert better.verdict == "better" and better.needed is None and better.difference.low > 0
    open_ = compare(a, make_results("c", make_task(slightly.tolist(), run="c"))).tasks[0]
    assert open_.verdict == "inconclusive" and open_.detectable > abs(open_.difference.value)
    assert open_.needed is None or open_.needed > 200
    assert open_.mcnemar_p is not None


def test_lower_is_better_turns_the_verdict_around() -> None:
    a = make_results("a", make_task([1.0] * 40, run="a", direction="lower"))
    b = make_results("b", make_task([0.0] * 40, run="b", direction="lower"))
    assert compare(a, b).tasks[0].verdict == "better"


def test_equal_models_have_no_difference_and_an_honest_reach() -> None:
    a, b = (make_results(n, make_task([0, 1] * 30, run=n)) for n in "ab")
    task = compare(a, b).tasks[0]
    assert (task.p, task.verdict, task.needed, task.flips) == (1.0, "inconclusive", None, ())
    assert 0.05 < task.detectable < 0.2


def test_false_positive_rate_over_many_tasks_is_at_most_five_percent() -> None:
    rng, wrong, repeats = np.random.default_rng(1), 0, 120
    for repeat in range(repeats):
        names = [f"task{k}" for k in range(5)]
        runs: list[Results] = []
        for run in "ab":
            clusters = [np.clip(rng.normal(0.5, 0.3, 20), 0, 1).repeat(3) for _ in names]
            values = [(rng.random(60) < c).astype(float).tolist() for c in clusters]
            tasks = [make_task(v, task=n, run=run, per_cluster=3) for n, v in zip(names, values, strict=True)]
            runs.append(make_results(run, *tasks))
        comparison = compare(*runs, seed=repeat, draws=400)
        wrong += any(t.verdict != "inconclusive" for t in comparison.tasks)
    assert wrong / repeats <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / repeats)


def test_holm_covers_all_runs_of_a_comparison() -> None:
    rng = np.random.default_rng(3)
    runs = [
        make_results(n, make_task((rng.random(60) < p).astype(float).tolist(), run=n))
        for n, p in zip("abc", (0.4, 0.6, 0.6), strict=True)
    ]
    alone = compare(runs[0], runs[1]).tasks[0]
    together = compare_all(runs)[0].tasks[0]
    assert together.p == alone.p and together.p_holm >= alone.p_holm


def test_versions_profiles_and_disjoint_rows_are_refused() -> None:
    a = make_results("a", make_task([0, 1, 1]))
    with pytest.raises(UsageError, match="version 2"):
        compare(a, make_results("b", make_task([0, 1, 1], version=2)))
    with pytest.raises(UsageError, match="profile author"):
        compare(a, make_results("b", make_task([0, 1, 1], profile="author")))
    with pytest.raises(UsageError, match="share no task"):
        compare(a, make_results("b", make_task([0, 1, 1], task="fantom")))
    with pytest.raises(UsageError, match="no row was scored in both"):
        compare(a, make_results("b", make_task([None, None, None])))
    with pytest.raises(UsageError, match="two runs"):
        compare_all([a])


def test_comparison_does_not_depend_on_the_order_of_items() -> None:
    rng = np.random.default_rng(4)
    a = make_task((rng.random(40) < 0.5).astype(float).tolist(), run="a", per_cluster=4)
    b = make_task((rng.random(40) < 0.7).astype(float).tolist(), run="b", per_cluster=4)
    shuffled = b.model_copy(update={"items": tuple(reversed(b.items))})
    first = compare(make_results("a", a), make_results("b", b))
    assert first == compare(make_results("a", a), make_results("b", shuffled))
    assert "hitom" in first.summary()
