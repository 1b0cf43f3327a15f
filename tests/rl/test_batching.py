"""Micro-batches: the names read as the specification."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rl.batching import mini_batches, plan_micro_batches
from rl.samples import sample_of
from tests.rl.algorithms.builders import rollout

LENGTHS = st.lists(st.integers(1, 300), max_size=40)


@given(lengths=LENGTHS, ranks=st.integers(1, 4), budget=st.integers(50, 400), multiple_of=st.integers(1, 3))
def test_every_sample_is_in_one_micro_batch_and_all_ranks_run_the_same_number(
    lengths: list[int], ranks: int, budget: int, multiple_of: int
) -> None:
    plan = plan_micro_batches(lengths, ranks=ranks, max_tokens=budget, multiple_of=multiple_of)
    assert len(plan) == ranks
    assert len({len(bins) for bins in plan}) == 1
    assert len(plan[0]) % multiple_of == 0 and len(plan[0]) >= 1
    assert sorted(i for bins in plan for b in bins for i in b) == list(range(len(lengths)))
    for b in (b for bins in plan for b in bins):
        assert len(b) <= 1 or sum(lengths[i] for i in b) <= budget


def test_an_oversized_sample_lands_alone() -> None:
    plan = plan_micro_batches([500, 10, 10], ranks=1, max_tokens=100)
    assert [0] in plan[0]


def test_ranks_carry_nearly_equal_loads() -> None:
    lengths = [((i * 37) % 90) + 10 for i in range(64)]
    plan = plan_micro_batches(lengths, ranks=4, max_tokens=256)
    loads = [sum(lengths[i] for b in bins for i in b) for bins in plan]
    assert max(loads) - min(loads) <= 0.05 * max(loads)


def test_fewer_samples_than_ranks_leave_empty_micro_batches() -> None:
    assert plan_micro_batches([5], ranks=3, max_tokens=10) == [[[0]], [[]], [[]]]


@given(prompts=st.lists(st.sampled_from("abcdefg"), min_size=1, max_size=20), count=st.integers(1, 5))
def test_mini_batches_keep_prompts_whole_and_lose_nothing(prompts: list[str], count: int) -> None:
    samples = [sample_of(rollout(p, f"{p}{i}", 1.0)) for i, p in enumerate(prompts)]
    parts = mini_batches(samples, count, seed=1, step=2)
    assert len(parts) <= count and all(parts)
    assert sorted(s.episode_id for part in parts for s in part) == sorted(s.episode_id for s in samples)
    where = {}
    for i, part in enumerate(parts):
        for s in part:
            assert where.setdefault(s.prompt_id, i) == i


def test_mini_batches_are_drawn_by_seed_and_step() -> None:
    samples = [sample_of(rollout(f"p{i}", f"e{i}", 1.0)) for i in range(20)]

    def names(seed: int, step: int) -> list[list[str]]:
        return [[s.episode_id for s in part] for part in mini_batches(samples, 4, seed=seed, step=step)]

    assert names(0, 1) == names(0, 1)
    assert names(0, 1) != names(0, 2) != names(1, 2)
