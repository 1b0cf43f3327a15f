"""The order of bins is a pure function of (seed, position), and mixtures are exact."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from megatron_osim.mixture import WEIGHTED_BLOCK, make_mixture, permute

sizes = st.lists(st.integers(1, 40), min_size=1, max_size=4)


@given(st.integers(1, 500), st.integers(0, 2**63))
def test_permute_is_a_permutation(size: int, key: int) -> None:
    assert sorted(permute(i, size, key) for i in range(size)) == list(range(size))


@given(sizes, st.integers(0, 2**40))
def test_without_weights_each_epoch_reads_every_bin_exactly_once(sizes: list[int], seed: int) -> None:
    mixture = make_mixture(sizes, None, seed)
    everything = {(s, b) for s, n in enumerate(sizes) for b in range(n)}
    for epoch in range(2):
        draws = [mixture.draw(epoch * sum(sizes) + i) for i in range(sum(sizes))]
        assert {(d.source, d.bin) for d in draws} == everything
        assert {d.epoch for d in draws} == {epoch}


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 2**40))
def test_given_weights_are_met_exactly_in_every_block(seed: int) -> None:
    mixture = make_mixture([7, 1000, 50], [0.5, 0.3, 0.2], seed)
    counts = Counter(mixture.draw(WEIGHTED_BLOCK + n).source for n in range(WEIGHTED_BLOCK))
    assert counts == {0: 5000, 1: 3000, 2: 2000}


def test_within_each_epoch_of_a_source_no_bin_is_read_twice() -> None:
    mixture = make_mixture([7, 100], [0.9, 0.1], 3)
    seen: Counter[tuple[int, int, int]] = Counter()
    for n in range(2 * WEIGHTED_BLOCK):
        draw = mixture.draw(n)
        seen[draw.source, draw.epoch, draw.bin] += 1
    assert set(seen.values()) == {1}


def test_another_seed_or_epoch_gives_another_order() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        mixture = make_mixture([200], None, seed)
        return [mixture.draw(epoch * 200 + i).bin for i in range(200)]

    assert order(0, 0) == order(0, 0)
    assert order(0, 0) != order(1, 0)
    assert order(0, 0) != order(0, 1)


def test_a_draw_far_into_a_huge_corpus_needs_no_state() -> None:
    mixture = make_mixture([400_000_000, 3], [1.0, 1.0], 0)
    assert mixture.draw(10**12).bin < 400_000_000
