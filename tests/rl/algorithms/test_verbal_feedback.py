"""Verbal feedback: joint group under the plain prompt, own group under the feedback; ablations."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rl.algorithms import VerbalFeedbackConfig, build_algorithm
from rl.samples import TrainSample
from tests.rl.algorithms.builders import drafts, refined

SCORE = st.one_of(st.none(), st.sampled_from([0.0, 0.3, 1.0]))
PAIRS = st.lists(st.tuples(SCORE, SCORE), min_size=1, max_size=5)


def z(values: list[float]) -> np.ndarray:
    a = np.asarray(values, np.float64)
    return (a - a.mean()) / (a.std(ddof=1) + 1e-6)


def kind(sample: TrainSample) -> str:
    if not sample.episode_id.endswith("+"):
        return "draft"
    return "copy" if sample.rollout_logprobs is None else "hinted"


def weights(samples: tuple[TrainSample, ...]) -> dict[tuple[str, str], float]:
    return {(kind(s), s.episode_id): float(s.advantage[s.trainable][0]) for s in samples if s.advantage is not None}


@given(pairs=PAIRS)
def test_both_losses_equal_a_float64_reference(pairs) -> None:
    attempts = [refined("p", i, *pair) for i, pair in enumerate(pairs)]
    found = weights(build_algorithm(VerbalFeedbackConfig()).weigh(attempts).samples)
    drafts_alive = [(f"p#{i}", d) for i, (d, _) in enumerate(pairs) if d is not None]
    again_alive = [(f"p#{i}+", r) for i, (d, r) in enumerate(pairs) if d is not None and r is not None]
    joint = [r for _, r in drafts_alive + again_alive]
    expected: dict[tuple[str, str], float] = {}
    if len(set(joint)) > 1:
        names = [("draft", n) for n, _ in drafts_alive] + [("copy", n) for n, _ in again_alive]
        expected |= dict(zip(names, z(joint), strict=True))
    own = [r for _, r in again_alive]
    if len(set(own)) > 1:
        expected |= dict(zip([("hinted", n) for n, _ in again_alive], z(own), strict=True))
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-6, abs=1e-7)


def test_the_copy_is_the_refined_answer_under_the_plain_prompt() -> None:
    attempt = refined("p", 0, 0.0, 1.0)
    samples = build_algorithm(VerbalFeedbackConfig()).weigh([attempt]).samples
    copy = next(s for s in samples if kind(s) == "copy")
    assert attempt.refined is not None
    start = attempt.refined.prompt_len
    assert np.array_equal(copy.ids[: copy.prompt_len], attempt.draft.ids[: attempt.draft.prompt_len])
    assert np.array_equal(copy.ids[copy.prompt_len :], attempt.refined.ids[start:])
    assert copy.rollout_logprobs is None, "the engine never saw this context"


def test_a_failed_refinement_leaves_the_drafts_a_plain_group() -> None:
    failed = [refined("p", 0, 0.0, None), refined("p", 1, 1.0, None)]
    plain = drafts({"p": [0.0, 1.0]})
    algorithm = build_algorithm(VerbalFeedbackConfig())
    assert weights(algorithm.weigh(failed).samples) == weights(algorithm.weigh(plain).samples)


def test_imperfect_drafts_without_feedback_are_counted() -> None:
    weighed = build_algorithm(VerbalFeedbackConfig()).weigh([*drafts({"p": [0.0, 1.0]}), refined("q", 0, 0.0, 1.0)])
    assert weighed.counts.no_teacher == 1


@pytest.mark.parametrize(
    ("objective", "kinds"),
    [
        ("ditto", {"draft", "copy", "hinted"}),
        ("no_lfb", {"draft", "copy"}),
        ("copy_only", {"copy"}),
        ("sdpo_token", {"draft"}),
        ("sdpo_topk", {"draft"}),
        ("erl", {"draft", "copy"}),
        ("rltf", {"copy"}),
    ],
)
def test_each_objective_trains_its_own_parts(objective: str, kinds: set[str]) -> None:
    attempts = [refined("p", 0, 0.0, 1.0), refined("p", 1, 1.0, 0.3)]
    samples = build_algorithm(VerbalFeedbackConfig(objective=objective)).weigh(attempts).samples
    assert {kind(s) for s in samples} == kinds


def test_sdpo_distils_the_draft_from_the_feedback_context() -> None:
    (sample,) = (
        build_algorithm(VerbalFeedbackConfig(objective="sdpo_token", kl_weight=0.5))
        .weigh([refined("p", 0, 0.0, None)])
        .samples
    )
    assert sample.advantage is None and sample.teacher_prefix is not None
    assert sample.reverse_kl is not None and set(sample.reverse_kl[sample.trainable].tolist()) == {0.5}


def test_rltf_weighs_the_copy_by_its_exponential_advantage() -> None:
    (sample,) = build_algorithm(VerbalFeedbackConfig(objective="rltf")).weigh([refined("p", 0, 0.0, 1.0)]).samples
    expected = math.exp(z([0.0, 1.0])[1])
    assert sample.cross_entropy is not None
    assert sample.cross_entropy[-1] == pytest.approx(expected, rel=1e-6)


def test_sdpo_on_top_k_weighs_the_candidates_and_not_the_sampled_token() -> None:
    config = VerbalFeedbackConfig(objective="sdpo_topk", kl_weight=0.5, top_k=7)
    (sample,) = build_algorithm(config).weigh([refined("p", 0, 0.0, None)]).samples
    assert sample.advantage is None and sample.reverse_kl is None
    assert sample.top_k == 7 and sample.top_k_kl is not None and sample.teacher_prefix is not None
    assert set(sample.top_k_kl[sample.trainable].tolist()) == {0.5}


def everything(samples: tuple[TrainSample, ...]) -> list[tuple[object, ...]]:
    """All weights of all samples, comparable."""
    parts = ("advantage", "cross_entropy", "reverse_kl", "top_k_kl")
    return [
        (
            s.episode_id,
            s.context,
            s.ids.tobytes(),
            *(None if (w := getattr(s, p)) is None else w.tobytes() for p in parts),
        )
        for s in samples
    ]


def expected_weights(objective: str, pairs) -> dict[tuple[str, str, str], float]:
    """(part, episode, component) -> weight, in numpy and float64, from the formulas of the papers."""
    drafts_alive = [(i, d) for i, (d, _) in enumerate(pairs) if d is not None]
    again_alive = [(i, r) for i, (d, r) in enumerate(pairs) if d is not None and r is not None]
    joint = np.array([r for _, r in drafts_alive + again_alive])
    A = z(list(joint)) if len(joint) > 1 and np.ptp(joint) > 0 else None
    out: dict[tuple[str, str, str], float] = {}
    if objective in ("sdpo_token", "sdpo_topk"):
        component = "reverse_kl" if objective == "sdpo_token" else "top_k_kl"
        return {("draft", f"p#{i}", component): 1.0 for i, _ in drafts_alive}
    if objective == "erl":
        own = np.array([d for _, d in drafts_alive])
        if len(own) > 1 and np.ptp(own) > 0:
            values = z(list(own))
            out |= {("draft", f"p#{i}", "advantage"): a for (i, _), a in zip(drafts_alive, values, strict=True)}
        better = [i for i, r in again_alive if r > pairs[i][0]]
        return out | {("copy", f"p#{i}+", "cross_entropy"): 1.0 for i in better}
    if A is None:
        return out
    of_copies = list(zip(again_alive, A[len(drafts_alive) :], strict=True))
    if objective == "rltf":
        return {("copy", f"p#{i}+", "cross_entropy"): min(20.0, math.exp(a)) for (i, _), a in of_copies}
    out |= {("copy", f"p#{i}+", "advantage"): a for (i, _), a in of_copies}
    if objective == "no_lfb":
        out |= {("draft", f"p#{i}", "advantage"): a for (i, _), a in zip(drafts_alive, A, strict=False)}
    return out


@pytest.mark.parametrize("objective", ["no_lfb", "copy_only", "sdpo_token", "sdpo_topk", "erl", "rltf"])
@given(pairs=PAIRS)
def test_ablations_equal_a_float64_reference(objective: str, pairs) -> None:
    attempts = [refined("p", i, *pair) for i, pair in enumerate(pairs)]
    found = {
        (kind(s), s.episode_id, name): float(weight[s.trainable][0])
        for s in build_algorithm(VerbalFeedbackConfig(objective=objective)).weigh(attempts).samples
        for name in ("advantage", "cross_entropy", "reverse_kl", "top_k_kl")
        if (weight := getattr(s, name)) is not None
    }
    expected = expected_weights(objective, pairs)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-6, abs=1e-7)


OBJECTIVES = ["ditto", "no_lfb", "copy_only", "sdpo_token", "sdpo_topk", "erl", "rltf"]


@pytest.mark.parametrize("objective", OBJECTIVES)
@given(pairs=PAIRS, order=st.randoms(use_true_random=False))
def test_permuting_the_attempts_changes_nothing_bit_for_bit(objective: str, pairs, order) -> None:
    attempts = [refined("p", i, *pair) for i, pair in enumerate(pairs)]
    shuffled = list(attempts)
    order.shuffle(shuffled)
    algorithm = build_algorithm(VerbalFeedbackConfig(objective=objective))
    a, b = algorithm.weigh(attempts), algorithm.weigh(shuffled)
    assert a.counts == b.counts and everything(a.samples) == everything(b.samples)


@pytest.mark.parametrize("objective", OBJECTIVES)
@given(pairs=PAIRS)
def test_a_failed_draft_changes_no_others_weight(objective: str, pairs) -> None:
    attempts = [refined("p", i, *pair) for i, pair in enumerate(pairs)]
    algorithm = build_algorithm(VerbalFeedbackConfig(objective=objective))
    failed = refined("p", 99, None, 1.0)
    assert everything(algorithm.weigh([*attempts, failed]).samples) == everything(algorithm.weigh(attempts).samples)
