"""On-policy distillation and best-of-k."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from common.config import validate
from common.errors import ConfigError
from rl.algorithms import ExpertSFTConfig, OPDConfig, build_algorithm
from rl.config import RLConfig
from rl.samples import Attempt
from tests.rl.algorithms.builders import drafts, rollout

PREFIX = np.array([7, 8, 9, 10, 11, 12], np.int32)


def taught(rewards: list[float | None]) -> list[Attempt]:
    return [replace(a, teacher_prefix=PREFIX) for a in drafts({"p": rewards})]


def test_every_scored_draft_learns_from_the_teacher_and_none_from_rewards() -> None:
    weighed = build_algorithm(OPDConfig(kl_weight=0.5)).weigh(taught([1.0, 1.0, None]))
    assert [s.episode_id for s in weighed.samples] == ["p#0", "p#1"]
    for sample in weighed.samples:
        assert sample.advantage is None and sample.reverse_kl is not None
        assert np.array_equal(sample.reverse_kl, np.where(sample.trainable, np.float32(0.5), 0))


def test_rewards_are_added_on_request() -> None:
    weighed = build_algorithm(OPDConfig(reward_weight=2.0)).weigh(taught([0.0, 1.0]))
    values = [float(s.advantage[-1]) for s in weighed.samples if s.advantage is not None]
    assert values == pytest.approx([-2 * 0.5**0.5, 2 * 0.5**0.5], rel=1e-5)


def test_a_draft_without_privileged_context_is_counted_not_trained() -> None:
    weighed = build_algorithm(OPDConfig()).weigh(drafts({"p": [0.0, 1.0]}))
    assert weighed.samples == () and weighed.counts.no_teacher == 2


def test_the_teacher_sees_its_own_prompt_and_the_students_whole_stream() -> None:
    # Two sampled runs with an observation between them.
    base = rollout("p", "p#0", 1.0)
    trainable = np.array([False, False, False, True, False, True, True])
    sample = build_algorithm(OPDConfig()).weigh([Attempt(replace(base, trainable=trainable), PREFIX)]).samples[0]
    sequence = sample.teacher_sequence()
    assert np.array_equal(sequence.ids, np.concatenate([PREFIX, base.ids[3:]]))
    assert np.array_equal(sequence.trainable, np.concatenate([np.zeros(6, bool), trainable[3:]]))
    scored = np.arange(len(sequence.ids), dtype=np.float32)
    back = sample.with_teacher(scored).teacher_logprobs
    assert back is not None and back.tolist() == [0, 0, 0, 6, 0, 8, 9]


def test_an_external_teacher_without_privileged_context_sees_the_plain_prompt(tmp_path) -> None:
    config = OPDConfig(teacher="external", external_model=tmp_path, privileged_context=False)
    (sample,) = build_algorithm(config).weigh(drafts({"p": [1.0]})).samples
    assert np.array_equal(sample.teacher_sequence().ids, sample.ids)


@pytest.mark.parametrize(
    "raw",
    [
        {"teacher": "external"},
        {"privileged_context": False},
        {"external_model": "somewhere"},
        {"external_urls": ["http://a:1"]},
        {"teacher": "external", "external_model": "somewhere", "divergence": "top_k"},
        {"teacher": "external", "external_model": "somewhere", "teacher_temperature": 0.5},
        {"teacher_temperature": 0.0},
    ],
)
def test_a_teacher_that_cannot_teach_is_refused(raw) -> None:
    with pytest.raises(ConfigError):
        validate(OPDConfig, raw, where="test")


def test_top_k_distillation_weighs_the_candidates_by_the_teacher_of_choice() -> None:
    config = OPDConfig(divergence="top_k", top_k=5, kl_weight=0.5, teacher="ema", teacher_temperature=0.5)
    (sample,) = build_algorithm(config).weigh(taught([1.0])).samples
    assert sample.reverse_kl is None and sample.top_k_kl is not None and sample.teacher == "average"
    assert sample.teacher_temperature == 0.5
    assert sample.top_k == 5 and set(sample.top_k_kl[sample.trainable].tolist()) == {0.5}


def test_the_teacher_grades_the_students_candidates_token_for_token() -> None:
    (sample,) = build_algorithm(OPDConfig(divergence="top_k", top_k=2)).weigh(taught([1.0])).samples
    ids = np.arange(2 * len(sample.ids), dtype=np.int32).reshape(-1, 2)
    sample = replace(sample, top_k_ids=ids)
    asked = sample.teacher_candidates()
    assert asked.shape == (len(sample.teacher_sequence().ids), 2)
    back = sample.with_top_k_teacher(asked.astype(np.float32)).top_k_teacher
    assert back is not None and np.array_equal(back[sample.prompt_len :], ids[sample.prompt_len :])


REWARDS = st.lists(st.one_of(st.none(), st.sampled_from([0.0, 0.5, 1.0])), min_size=1, max_size=5)
CONFIGS = [
    OPDConfig(reward_weight=0.5),
    OPDConfig(divergence="top_k", reward_weight=0.5),
    ExpertSFTConfig(top=2, min_reward=0.5),
]


def everything(samples) -> list[tuple[object, ...]]:
    parts = ("advantage", "cross_entropy", "reverse_kl", "top_k_kl")
    return [
        (s.episode_id, s.seat, *(None if (w := getattr(s, p)) is None else w.tobytes() for p in parts))
        for s in samples
    ]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: f"{c.name}-{getattr(c, 'divergence', '')}")
@given(rewards=REWARDS, order=st.randoms(use_true_random=False))
def test_permutations_and_failures_change_no_others_weight(config, rewards, order) -> None:
    attempts = taught(rewards)
    failed = replace(Attempt(rollout("p", "p#failed", None)), teacher_prefix=PREFIX)
    shuffled = [*attempts, failed]
    order.shuffle(shuffled)
    algorithm = build_algorithm(config)
    assert everything(algorithm.weigh(shuffled).samples) == everything(algorithm.weigh(attempts).samples)


@given(rewards=REWARDS, weight=st.sampled_from([0.5, 2.0]))
def test_reward_terms_of_distillation_equal_a_float64_reference(rewards, weight: float) -> None:
    alive = np.array([r for r in rewards if r is not None])
    samples = build_algorithm(OPDConfig(reward_weight=weight)).weigh(taught(rewards)).samples
    found = [0.0 if s.advantage is None else float(s.advantage[-1]) for s in samples]
    expected = np.zeros(len(alive))
    if len(alive) > 1 and np.ptp(alive) > 0:
        expected = weight * (alive - alive.mean()) / (alive.std(ddof=1) + 1e-6)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)


def test_best_of_k_keeps_the_best_that_reach_the_bar_whatever_the_order() -> None:
    attempts = drafts({"p": [0.2, 1.0, None, 1.0, 0.9], "q": [0.1, 0.2]})
    algorithm = build_algorithm(ExpertSFTConfig(top=2, min_reward=0.5))
    weighed = algorithm.weigh(attempts)
    assert [s.episode_id for s in weighed.samples] == ["p#1", "p#3"]
    assert [s.episode_id for s in algorithm.weigh(attempts[::-1]).samples] == ["p#1", "p#3"]
    assert weighed.counts.groups == 2 and weighed.counts.trained == 1
    assert all(s.cross_entropy is not None and s.cross_entropy.sum() == s.trained_tokens for s in weighed.samples)


def test_an_external_teacher_is_refused_where_rollouts_have_another_temperature() -> None:
    algorithm = {"name": "opd", "teacher": "external", "external_model": "t"}
    base = {"model": "m", "steps": 1, "tasks": [{"task": "t", "algorithm": algorithm}]}
    RLConfig.model_validate(base)
    with pytest.raises(ValidationError, match="temperature 1"):
        RLConfig.model_validate(base | {"sampling": {"temperature": 0.7}})
