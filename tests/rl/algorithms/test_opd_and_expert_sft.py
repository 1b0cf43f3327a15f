"""On-policy distillation and best-of-k."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from common.config import validate
from common.errors import ConfigError
from rl.algorithms import ExpertSFTConfig, OPDConfig, build_algorithm
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
    "raw", [{"teacher": "external"}, {"privileged_context": False}, {"external_model": "somewhere"}]
)
def test_a_teacher_that_cannot_teach_is_refused(raw) -> None:
    with pytest.raises(ConfigError):
        validate(OPDConfig, raw, where="test")


def test_best_of_k_keeps_the_best_that_reach_the_bar_whatever_the_order() -> None:
    attempts = drafts({"p": [0.2, 1.0, None, 1.0, 0.9], "q": [0.1, 0.2]})
    algorithm = build_algorithm(ExpertSFTConfig(top=2, min_reward=0.5))
    weighed = algorithm.weigh(attempts)
    assert [s.episode_id for s in weighed.samples] == ["p#1", "p#3"]
    assert [s.episode_id for s in algorithm.weigh(attempts[::-1]).samples] == ["p#1", "p#3"]
    assert weighed.counts.groups == 2 and weighed.counts.trained == 1
    assert all(s.cross_entropy is not None and s.cross_entropy.sum() == s.trained_tokens for s in weighed.samples)
