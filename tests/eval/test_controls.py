"""What tasks declare for evaluation's controls really holds: imposters, human turns, survey answers."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from common.errors import UsageError
from envs import registry
from envs.types import Row
from eval.control import with_imposters

PERSONA_TASKS = [n for n in registry.names() if registry.get(n).imposter is not None]
HUMAN_TASKS = [n for n in registry.names() if registry.get(n).human is not None]


def examples(name: str) -> list[Row]:
    spec = registry.get(name)
    return list(spec.examples()) if spec.examples is not None else list(spec.rows("test", 4, 0))


@pytest.mark.parametrize("name", PERSONA_TASKS)
def test_an_imposter_sees_another_persona_under_its_own_row(name: str) -> None:
    spec = registry.get(name)
    rows = examples(name)
    assert spec.imposter is not None and len(rows) >= 2, "an imposter needs somebody to be"
    env, changed = spec.env("strict"), 0
    for row, other in zip(rows, [*rows[1:], rows[0]], strict=True):
        swapped = spec.imposter(row, other)
        assert (swapped.id, swapped.cluster, swapped.task) == (row.id, row.cluster, row.task)
        views = [env.view(env.start(r, Random(0)), spec.seats[0]) for r in (row, swapped)]
        changed += views[0] != views[1]
    if len({row.cluster for row in rows}) < 2:
        pytest.skip("the examples are of one person: nothing to see")
    assert changed, "at least one view tells the difference"


def test_some_tasks_have_a_persona_and_some_hold_human_turns() -> None:
    assert {"twinvoice", "humanual_chat", "alignx_demo", "lifechoices"} <= set(PERSONA_TASKS)
    assert {"humanual_chat", "mirrorbench", "coser"} <= set(HUMAN_TASKS)


@pytest.mark.parametrize("name", HUMAN_TASKS)
def test_human_turns_are_texts_of_the_row(name: str) -> None:
    spec = registry.get(name)
    assert spec.human is not None
    turns = [turn for row in examples(name) for turn in spec.human(row)]
    assert turns and all(isinstance(turn, str) and turn.strip() for turn in turns)


def test_no_row_gets_a_persona_of_its_own_cluster_whatever_their_sizes() -> None:
    spec = replace(
        registry.get("twinvoice"),
        imposter=lambda row, other: replace(row, data={"own": row.cluster, "given": other.cluster}),
    )
    sizes = [1, 5, 2, 2, 1, 3]
    rows = [Row("twinvoice", f"{c}-{k}", f"c{c}", {}) for c, n in enumerate(sizes) for k in range(n)]
    for seed in range(20):
        swapped = with_imposters(spec, rows, seed)
        assert [r.id for r in swapped] == [r.id for r in rows]
        assert all(r.data["own"] != r.data["given"] for r in swapped)
    with pytest.raises(UsageError, match="not enough others"):
        with_imposters(spec, [r for r in rows if r.cluster in ("c1", "c2")], 0)
