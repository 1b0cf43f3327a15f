"""The task registry and the conformance check."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest

from common.errors import UsageError
from envs import registry
from envs.check import check
from envs.env import Feedback, FeedbackAsk, JudgeAsk
from envs.registry import FeedbackPolicy, Metric, TaskSpec
from envs.types import Message, Row, Score
from tests.envs.table import Dialogue, Talk


def dialogue(env: Any = None, **changes: Any) -> TaskSpec:
    spec = TaskSpec(
        name="dialogue",
        axis="SS",
        version=1,
        metric=Metric("vowels"),
        cluster="row",
        licence="none",
        env=lambda profile: env or Dialogue(),
        rows=lambda split, limit, seed: [Row("dialogue", f"{split}{i}", str(i), {"i": i}) for i in range(limit or 2)],
        seats=("a",),
        private=lambda row: {},
        feedback=FeedbackPolicy("rule"),
    )
    return replace(spec, **changes)


def rules(spec: TaskSpec) -> set[str]:
    return {violation.rule for violation in check(spec)}


@pytest.mark.parametrize("name", registry.names())
def test_every_built_in_task_conforms(name: str) -> None:
    spec = registry.get(name)
    assert spec.name == name
    assert check(spec) == []


def test_an_unknown_task_names_near_ones() -> None:
    with pytest.raises(UsageError, match="did you mean hitom"):
        registry.get("hitm")
    with pytest.raises(UsageError, match="cannot load"):
        registry.get("no.such.module:spec")
    with pytest.raises(UsageError, match="strict"):
        registry.profile_of(dialogue(), "author")


def test_a_task_outside_osim_is_named_by_module_and_function() -> None:
    assert registry.get("tests.envs.test_registry:dialogue").name == "dialogue"
    assert rules(dialogue()) == set()


def test_check_finds_an_environment_that_shows_private_text() -> None:
    class Leaky(Dialogue):
        def view(self, state: Talk, seat: str) -> Any:
            return [Message("system", "a wants the red car"), *super().view(state, seat)]

    spec = dialogue(Leaky(), private=lambda row: {"a": ["the red car"]})
    assert rules(spec) == {"privacy"}
    assert rules(dialogue(private=lambda row: {"a": ["the red car"]})) == set()


def test_check_finds_draws_from_outside_and_changed_states() -> None:
    counter = iter(range(10**6))

    class Impure(Dialogue):
        def hear(self, state: Talk, seat: str, text: str) -> Any:
            return super().hear(state, seat, f"{text}{next(counter)}")

    @dataclass
    class Board:
        said: list[Any]
        secret: int = 0

    class Mutating(Dialogue):
        def start(self, row: Any, rng: Any) -> Any:
            return Board([])

        def hear(self, state: Any, seat: str, text: str) -> Any:
            state.said.append((seat, text))
            return state

    assert {"determinism", "purity"} <= rules(dialogue(Impure()))
    assert "purity" in rules(dialogue(Mutating()))


def test_check_finds_undeclared_judges_and_missing_scores() -> None:
    class Asks(Dialogue):
        def score(self, state: Talk) -> Any:
            return {"a": JudgeAsk("secret-judge", {}, lambda v: Score(1.0))}

    class Forgets(Dialogue):
        def score(self, state: Talk) -> Any:
            return {"b": Score(1.0)}

    assert rules(dialogue(Asks())) == {"judges"}
    assert "scores" in rules(dialogue(Forgets()))


def test_check_finds_feedback_that_is_not_of_the_kind_declared() -> None:
    class Telling(Dialogue):
        def feedback(self, state: Talk, seat: str) -> Any:
            return Feedback("It was vowels.", sees_gold=True)

    class Fickle(Dialogue):
        def feedback(self, state: Talk, seat: str) -> Any:
            return Feedback(str(next(counter)), sees_gold=False)

    class Asks(Dialogue):
        def feedback(self, state: Talk, seat: str) -> Any:
            return FeedbackAsk("critic")

    counter = iter(range(10**6))
    assert rules(dialogue(Telling())) == rules(dialogue(feedback=FeedbackPolicy("none"))) == {"feedback"}
    assert rules(dialogue(Telling(), feedback=FeedbackPolicy("rule", sees_gold=True))) == set()
    assert rules(dialogue(Fickle())) == {"purity"}
    assert rules(dialogue(Asks())) == {"feedback", "judges"}
    assert rules(dialogue(Asks(), feedback=FeedbackPolicy("critic"))) == {"judges"}


def test_check_finds_scores_out_of_bounds_and_seats_without_a_word_on_privacy() -> None:
    class Generous(Dialogue):
        def score(self, state: Talk) -> Any:
            return {"a": Score(3.0)}

    assert "bounds" in rules(dialogue(Generous()))
    assert rules(dialogue(private=None)) == {"privacy"}


def test_check_finds_policies_that_behave_in_no_way_and_earn_the_full_score() -> None:
    class Lenient(Dialogue):
        def score(self, state: Talk) -> Any:
            return {"a": Score(float(any("Begin." in text for _, text in state.said)))}

    class Silent(Dialogue):
        def score(self, state: Talk) -> Any:
            return {"a": Score(float(not any(text for who, text in state.said if who == "a")))}

    assert rules(dialogue(Lenient())) == rules(dialogue(Silent())) == {"exploit"}


def test_check_finds_bad_row_sources() -> None:
    counter = iter(range(10**6))
    unstable = dialogue(rows=lambda s, n, seed: [Row("dialogue", str(next(counter)), "c", {})])
    twice = dialogue(rows=lambda s, n, seed: [Row("dialogue", "1", "c", {})] * 2)
    assert "rows" in rules(unstable) and "rows" in rules(twice)
    assert rules(dialogue(rows=lambda s, n, seed: [])) == {"rows"}
