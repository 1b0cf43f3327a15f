"""Intervals have their nominal coverage, tests their nominal level; closed forms agree with scipy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.stats import (
    Clustered,
    JointBootstrap,
    design_effect,
    holm,
    mcnemar_exact,
    minimum_detectable,
    paired_sample_size,
    proportion,
    sign_flip_p,
    t_quantile,
    wilson,
)

scipy_stats = pytest.importorskip("scipy.stats", reason="scipy is in the extra `eval`")


def clustered_scores(
    rng: np.random.Generator, clusters: int, size: int, mean: float, icc: float
) -> tuple[list, list]:
    sizes = rng.integers(1, 2 * size, clusters) if size > 1 else np.ones(clusters, int)
    level = (
        rng.beta(mean * (1 - icc) / icc, (1 - mean) * (1 - icc) / icc, clusters) if icc else np.full(clusters, mean)
    )
    where = np.repeat(np.arange(clusters), sizes)
    return (rng.random(len(where)) < level[where]).astype(float).tolist(), where.tolist()


@pytest.mark.parametrize(
    ("clusters", "size", "mean", "icc"),
    [(40, 1, 0.9, 0.0), (100, 1, 0.3, 0.0), (30, 5, 0.6, 0.3), (30, 5, 0.9, 0.3), (100, 4, 0.8, 0.2)],
)
def test_interval_of_a_task_mean_covers_the_truth_in_93_to_97_percent_of_samples(clusters, size, mean, icc) -> None:
    rng, samples = np.random.default_rng(7), 2000
    covered = 0
    for sample in range(samples):
        statistic = Clustered.of(*clustered_scores(rng, clusters, size, mean, icc))
        e = JointBootstrap(sample, draws=400).estimate("task", statistic, unit=True)
        covered += e.low <= mean <= e.high
    assert 0.93 <= covered / samples <= 0.97


def test_interval_of_an_unbounded_mean_covers_the_truth_in_93_to_97_percent_of_samples() -> None:
    rng, samples, covered = np.random.default_rng(3), 1500, 0
    for sample in range(samples):
        values = (rng.normal(0, 0.5, 30)[:, None] + rng.normal(0.1, 1.0, (30, 4))).ravel()
        statistic = Clustered.of(values.tolist(), np.repeat(np.arange(30), 4).tolist())
        bootstrap = JointBootstrap(sample, draws=800)
        low, high = bootstrap.interval(statistic.mean, bootstrap.means("t", [statistic])[:, 0], clusters=30)
        covered += low <= 0.1 <= high
    assert 0.93 <= covered / samples <= 0.97


def test_ignoring_clusters_would_be_too_sure() -> None:
    rng, covered = np.random.default_rng(5), 0
    for _ in range(400):
        values, _ = clustered_scores(rng, 30, 8, 0.6, 0.4)
        low, high = wilson(sum(values), len(values))
        covered += low <= 0.6 <= high
    assert covered / 400 < 0.85


def test_sign_flip_test_keeps_its_level_when_there_is_no_difference() -> None:
    rng, samples = np.random.default_rng(11), 1500
    hits = sum(
        sign_flip_p(rng.choice([-2, -1, 0, 1, 2], 25).astype(float), seed=i, flips=400) <= 0.05
        for i in range(samples)
    )
    assert hits / samples <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / samples)


def test_sign_flip_test_finds_a_real_difference() -> None:
    rng = np.random.default_rng(2)
    assert sign_flip_p(rng.normal(0.5, 1.0, 100), seed=0) < 0.01
    assert sign_flip_p(np.zeros(10), seed=0) == 1.0


def test_exact_sign_flip_equals_mcnemar_on_single_discordant_pairs() -> None:
    for lost, won in [(0, 5), (2, 7), (4, 4), (1, 10)]:
        differences = np.array([-1.0] * lost + [1.0] * won)
        assert sign_flip_p(differences, seed=0) == pytest.approx(mcnemar_exact(lost, won))


@pytest.mark.parametrize(("a", "b"), [(0, 0), (3, 9), (10, 2), (40, 60)])
def test_mcnemar_agrees_with_scipy(a: int, b: int) -> None:
    expected = scipy_stats.binomtest(a, a + b, 0.5).pvalue if a + b else 1.0
    assert mcnemar_exact(a, b) == pytest.approx(expected)


@pytest.mark.parametrize(("k", "n"), [(0, 10), (5, 10), (37, 200), (200, 200)])
def test_wilson_agrees_with_scipy(k: int, n: int) -> None:
    expected = scipy_stats.binomtest(k, n).proportion_ci(method="wilson")
    assert wilson(k, n) == pytest.approx((expected.low, expected.high), abs=1e-9)


@pytest.mark.parametrize("dof", [1, 2, 3, 5, 9, 30, 1000])
def test_t_quantile_agrees_with_scipy(dof: int) -> None:
    assert t_quantile(0.975, dof) == pytest.approx(scipy_stats.t.ppf(0.975, dof), rel=5e-3)


def test_holm_is_step_down_monotone_and_in_order_of_the_names() -> None:
    adjusted = holm({"c": 0.04, "a": 0.01, "b": 0.03, "d": 0.9})
    assert list(adjusted) == ["c", "a", "b", "d"]
    assert adjusted == pytest.approx({"a": 0.04, "b": 0.09, "c": 0.09, "d": 0.9})


@pytest.mark.parametrize(("difference", "needed"), [(0.02, 3923), (0.05, 626), (0.10, 155)])
def test_sample_size_is_connors_for_20_percent_discordance(difference: float, needed: int) -> None:
    assert paired_sample_size(difference, np.sqrt(0.2 - difference**2)) == needed


def test_sample_size_grows_with_clustering_and_is_unknown_for_no_difference() -> None:
    assert paired_sample_size(0.05, 0.4, design_effect=3.0) == pytest.approx(3 * paired_sample_size(0.05, 0.4), abs=3)
    assert paired_sample_size(0.0, 0.4) is None


def test_what_can_be_detected_is_detected_with_80_percent_power() -> None:
    rng, n, sd = np.random.default_rng(0), 60, 0.6
    difference = minimum_detectable(sd / np.sqrt(n))
    found = sum(sign_flip_p(rng.normal(difference, sd, n), seed=i, flips=400) <= 0.05 for i in range(400))
    assert 0.72 <= found / 400 <= 0.88


def test_all_equal_scores_still_have_an_interval() -> None:
    e = JointBootstrap(0, draws=200).estimate("t", Clustered.of([1.0] * 20, list(range(20))), unit=True)
    assert (e.value, e.high) == (1.0, 1.0) and 0.75 < e.low < 0.9


def test_one_cluster_says_nothing() -> None:
    e = JointBootstrap(0, draws=200).estimate("t", Clustered.of([1.0, 0.0], ["a", "a"]), unit=True)
    assert (e.low, e.high) == (0.0, 1.0)


def test_plain_proportion_has_its_counts() -> None:
    e = proportion(3, 12)
    assert (e.value, e.n, e.clusters) == (0.25, 12, 12) and e.low < 0.25 < e.high


def test_design_effect_is_one_for_independent_items_and_the_size_for_copies() -> None:
    rng = np.random.default_rng(0)
    independent = rng.normal(size=400)
    assert design_effect(independent, Clustered.of(independent.tolist(), list(range(400)))) == pytest.approx(
        1.0, abs=0.02
    )
    copies = np.repeat(rng.normal(size=100), 4)
    assert design_effect(
        copies, Clustered.of(copies.tolist(), np.repeat(np.arange(100), 4).tolist())
    ) == pytest.approx(4.0, abs=0.1)


@given(
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 8)), min_size=2, max_size=40),
    st.randoms(use_true_random=False),
)
@settings(max_examples=60, deadline=None)
def test_estimates_do_not_depend_on_the_order_of_episodes(scored, shuffler) -> None:
    other = list(scored)
    shuffler.shuffle(other)
    estimates = [
        JointBootstrap(3, draws=200).estimate("t", Clustered.of([v for v, _ in s], [c for _, c in s]), unit=True)
        for s in (scored, other)
    ]
    assert estimates[0].value == pytest.approx(estimates[1].value)
    assert (estimates[0].low, estimates[0].high) == pytest.approx((estimates[1].low, estimates[1].high), abs=1e-9)
    assert (
        0 <= estimates[0].low <= estimates[0].value + 1e-12
        and estimates[0].value <= estimates[0].high + 1e-12 <= 1 + 1e-9
    )


def test_draws_of_a_task_do_not_depend_on_other_tasks() -> None:
    statistic = Clustered.of([0.0, 1.0, 1.0], ["a", "b", "c"])
    bootstrap = JointBootstrap(1, draws=300)
    alone = bootstrap.means("x", [statistic])
    bootstrap.means("y", [statistic])
    assert np.array_equal(alone, bootstrap.means("x", [statistic]))
    assert not np.array_equal(alone, bootstrap.means("y", [statistic]))
