"""Seeds depend on every coordinate, its type and its place, and on nothing else."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from common.seeds import derive_rng, derive_seed

coordinates = st.lists(
    st.one_of(st.integers(), st.text(alphabet=st.characters(codec="ascii", exclude_characters="\x1f")))
)


@given(st.integers(), coordinates, coordinates)
def test_equal_coordinates_give_equal_seeds_and_different_ones_differ(
    seed: int, a: list[int | str], b: list[int | str]
) -> None:
    assert (derive_seed(seed, *a) == derive_seed(seed, *b)) == (a == b)
    assert 0 <= derive_seed(seed, *a) < 2**63


def test_generators_are_private() -> None:
    first, second = derive_rng(1, "x"), derive_rng(1, "x")
    first.random()
    assert derive_rng(1, "x").random() == second.random()
