"""GRPO and its variants against an independent float64 reference."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from rl.algorithms import GRPOConfig, build_algorithm
from rl.config import RLConfig
from rl.samples import Attempt, TrainSample
from tests.rl.algorithms.builders import drafts, rollout

REWARDS = st.lists(st.one_of(st.none(), st.sampled_from([0.0, 0.25, 0.5, 1.0])), min_size=1, max_size=6)
VARIANTS = ["grpo", "dr_grpo", "rloo", "gspo", "cispo", "rae"]
BATCHES = st.dictionaries(st.sampled_from(["p", "q", "r"]), REWARDS, min_size=1)


def advantage(sample: TrainSample) -> float:
    assert sample.advantage is not None
    values = set(sample.advantage[sample.trainable].tolist())
    assert len(values) == 1 and not sample.advantage[~sample.trainable].any()
    return values.pop()


def by_episode(samples: tuple[TrainSample, ...]) -> dict[str, float]:
    return {s.episode_id: advantage(s) for s in samples}


def reference(variant: str, rewards: list[float | None]) -> dict[int, float]:
    """In numpy and float64, from the papers' formulas."""
    alive = np.array([r for r in rewards if r is not None])
    if len(alive) < 2 or np.ptp(alive) == 0:
        return {}
    if variant == "rloo":
        values = np.array([r - np.delete(alive, i).mean() for i, r in enumerate(alive)])
    elif variant == "dr_grpo":
        values = alive - alive.mean()
    else:
        values = (alive - alive.mean()) / (alive.std(ddof=1) + 1e-6)
    return dict(zip([i for i, r in enumerate(rewards) if r is not None], values, strict=True))


@pytest.mark.parametrize("variant", ["grpo", "dr_grpo", "rloo", "gspo", "cispo"])
@given(batch=BATCHES)
def test_advantages_equal_a_float64_reference(variant: str, batch: dict[str, list[float | None]]) -> None:
    found = by_episode(build_algorithm(GRPOConfig(variant=variant)).weigh(drafts(batch)).samples)
    expected = {f"{p}#{i}": a for p, rewards in batch.items() for i, a in reference(variant, rewards).items()}
    assert found.keys() == expected.keys()
    for episode, value in expected.items():
        assert found[episode] == pytest.approx(value, rel=1e-6, abs=1e-7)


@given(steps=st.lists(BATCHES, min_size=1, max_size=3), decay=st.sampled_from([0.0, 0.5, 0.95]))
def test_rae_advantages_equal_a_float64_reference_over_steps(steps, decay: float) -> None:
    algorithm = build_algorithm(GRPOConfig(variant="rae", rae_decay=decay))
    baseline: float | None = None
    for batch in steps:
        found = by_episode(algorithm.weigh(drafts(batch)).samples)
        alive = {f"{p}#{i}": r for p, rewards in batch.items() for i, r in enumerate(rewards) if r is not None}
        if alive:
            mean = np.array(list(alive.values())).mean()
            baseline = mean if baseline is None else decay * baseline + (1 - decay) * mean
        assert found.keys() == alive.keys()
        for episode, reward in alive.items():
            assert found[episode] == pytest.approx(reward - baseline, rel=1e-6, abs=1e-7)


def test_rae_keeps_a_baseline_per_seat() -> None:
    attempts = drafts({"p": [1.0, 0.0]}, seat="alice") + drafts({"p": [0.25, 0.25]}, seat="bob")
    algorithm = build_algorithm(GRPOConfig(variant="rae"))
    found = {(s.seat, s.episode_id): advantage(s) for s in algorithm.weigh(attempts).samples}
    assert algorithm.state == {"alice": 0.5, "bob": 0.25}
    assert found["alice", "p#0"] == 0.5 and found["bob", "p#0"] == found["bob", "p#1"] == 0.0


@pytest.mark.parametrize("variant", VARIANTS)
@given(batch=BATCHES, order=st.randoms(use_true_random=False))
def test_permuting_the_batch_changes_nothing_bit_for_bit(variant: str, batch, order) -> None:
    attempts = drafts(batch)
    shuffled = list(attempts)
    order.shuffle(shuffled)
    first, second = (build_algorithm(GRPOConfig(variant=variant)) for _ in range(2))
    a, b = first.weigh(attempts), second.weigh(shuffled)
    assert a.counts == b.counts and first.state == second.state
    assert [s.episode_id for s in a.samples] == [s.episode_id for s in b.samples]
    for x, y in zip(a.samples, b.samples, strict=True):
        assert x.advantage is not None and np.array_equal(x.advantage, y.advantage)


@pytest.mark.parametrize("variant", VARIANTS)
@given(batch=BATCHES, prompt=st.sampled_from(["p", "q", "r"]))
def test_a_failed_sample_changes_no_others_weight(variant: str, batch, prompt: str) -> None:
    before = by_episode(build_algorithm(GRPOConfig(variant=variant)).weigh(drafts(batch)).samples)
    failed = Attempt(rollout(prompt, f"{prompt}#failed", None))
    after = build_algorithm(GRPOConfig(variant=variant)).weigh([*drafts(batch), failed])
    assert by_episode(after.samples) == before


TURN_REWARDS = st.lists(
    st.tuples(st.sampled_from([0.0, 1.0]), st.lists(st.sampled_from([0.0, 0.5, 1.0]), max_size=2)),
    min_size=1,
    max_size=5,
)


@given(group=TURN_REWARDS, weight=st.sampled_from([0.5, 2.0]))
def test_turn_level_credit_equals_a_float64_reference(group, weight: float) -> None:
    attempts = [
        Attempt(rollout("p", f"p#{i}", reward, turn_rewards=tuple(turns))) for i, (reward, turns) in enumerate(group)
    ]
    samples = build_algorithm(GRPOConfig(turn_weight=weight)).weigh(attempts).samples
    expected = np.zeros((len(group), 2))
    for turn in range(2):
        having = [i for i, (_, turns) in enumerate(group) if len(turns) > turn]
        values = np.array([group[i][1][turn] for i in having])
        if len(values) > 1 and np.ptp(values) > 0:
            expected[having, turn] = (values - values.mean()) / (values.std(ddof=1) + 1e-6)
    rewards = np.array([reward for reward, _ in group])
    episode = np.zeros(len(group))
    if len(group) > 1 and np.ptp(rewards) > 0:
        episode = (rewards - rewards.mean()) / (rewards.std(ddof=1) + 1e-6)
    if not expected.any() and not episode.any():
        assert samples == ()
        return
    for i, sample in enumerate(samples):
        first, second = episode[i] + weight * expected[i]
        assert sample.advantage is not None
        np.testing.assert_allclose(sample.advantage, [0, 0, 0, first, first, second, second], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("variant", ["dr_grpo", "rloo"])
def test_turn_level_credit_is_scaled_like_the_variants_own_advantages(variant: str) -> None:
    attempts = [Attempt(rollout("p", f"p#{i}", 0.0, turn_rewards=(reward,))) for i, reward in enumerate((1.0, 0.0))]
    first, second = build_algorithm(GRPOConfig(variant=variant, turn_weight=1.0)).weigh(attempts).samples
    np.testing.assert_allclose(first.advantage, [0, 0, 0, 0.5, 0.5, 0, 0])
    np.testing.assert_allclose(second.advantage, [0, 0, 0, -0.5, -0.5, 0, 0])


def test_a_ratio_of_whole_sequences_is_refused_where_ranks_hold_parts_of_them() -> None:
    base = {"model": "m", "steps": 1, "tasks": [{"task": "t", "algorithm": {"name": "grpo", "variant": "gspo"}}]}
    RLConfig.model_validate(base)
    with pytest.raises(ValidationError, match="context"):
        RLConfig.model_validate(base | {"parallel": {"context": 2}})


def test_turn_level_credit_without_groups_is_refused() -> None:
    with pytest.raises(ValidationError, match="rae has none"):
        GRPOConfig(variant="rae", turn_weight=0.5)


def test_singleton_and_zero_variance_groups_give_no_gradient_and_are_counted() -> None:
    weighed = build_algorithm(GRPOConfig()).weigh(
        drafts({"single": [1.0, None], "same": [0.5, 0.5, 0.5], "none": [None, None], "good": [0.0, 1.0]})
    )
    assert {s.prompt_id for s in weighed.samples} == {"good"}
    counts = weighed.counts
    assert (counts.groups, counts.trained, counts.singleton, counts.zero_variance) == (4, 1, 2, 1)


def test_an_average_sample_of_a_living_group_stays_in_the_batch() -> None:
    weighed = build_algorithm(GRPOConfig()).weigh(drafts({"p": [0.0, 0.5, 1.0]}))
    assert sorted(by_episode(weighed.samples).values()) == pytest.approx([-1.0, 0.0, 1.0], abs=1e-5)


def test_seats_of_one_prompt_are_groups_of_their_own() -> None:
    attempts = drafts({"p": [0.0, 1.0]}, seat="alice") + drafts({"p": [0.2, 0.4]}, seat="bob")
    weighed = build_algorithm(GRPOConfig(variant="dr_grpo")).weigh(attempts)
    found = {(s.seat, s.episode_id): advantage(s) for s in weighed.samples}
    assert found["alice", "p#0"] == pytest.approx(-0.5) and found["bob", "p#0"] == pytest.approx(-0.1)


def test_gspo_and_cispo_differ_from_grpo_in_the_surrogate_only() -> None:
    attempts = drafts({"p": [0.0, 1.0]})
    of = {v: build_algorithm(GRPOConfig(variant=v)).weigh(attempts).samples[0] for v in ("grpo", "gspo", "cispo")}
    assert advantage(of["grpo"]) == advantage(of["gspo"]) == advantage(of["cispo"])
    assert of["gspo"].surrogate.sequence_ratio and not of["gspo"].surrogate.detached
    assert of["cispo"].surrogate.detached and not of["cispo"].surrogate.sequence_ratio
    assert of["gspo"].surrogate.clip_high == 4e-4


def test_rae_baselines_run_per_seat_and_resume_from_their_state() -> None:
    config = GRPOConfig(variant="rae", rae_decay=0.5)
    steps = [drafts({"p": [1.0]}, seat="alice"), drafts({"q": [0.0]}, seat="alice")]
    algorithm = build_algorithm(config)
    algorithm.weigh(steps[0])
    resumed = build_algorithm(config)
    resumed.state = dict(algorithm.state)
    a, b = algorithm.weigh(steps[1]), resumed.weigh(steps[1])
    # Baseline 1.0 after the first step, 0.5 after the second: the singleton learns.
    assert by_episode(a.samples) == by_episode(b.samples) == {"q#0": -0.5}
