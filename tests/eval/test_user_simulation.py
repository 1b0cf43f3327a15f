"""tau-USI: features, Dice, calibration error, and reactions where there is something to react to."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from common.errors import UsageError
from eval.user_simulation.errors import conditioned, is_agent_error, mark_errors
from eval.user_simulation.features import DIMENSIONS, Turn, features, question_kind
from eval.user_simulation.usi import Conversation, calibration_error, dice, index


def talk(task: str, *texts: str, success: float | None = None, after: tuple[int, ...] = ()) -> Conversation:
    return Conversation(task, tuple(Turn(t, k in after) for k, t in enumerate(texts)), success)


HUMAN = [
    talk("a", "hi, i need to change order #W123456 please", "ok", "no that's wrong, ugh", success=1.0, after=(2,)),
    talk("b", "cancel my flight", "yes", "why would that cost more?", success=0.0, after=(2,)),
]


def test_features_count_what_people_do() -> None:
    found = features(HUMAN[0].turns)
    assert found["politeness"] == pytest.approx(1 / 3) and found["acknowledge_only"] == pytest.approx(1 / 3)
    assert found["accusation"] == pytest.approx(1 / 3) and found["emotion"] == pytest.approx(1 / 3)
    assert found["identifiers"] > 0 and found["opening_words"] == 8.0
    assert set(found) == {f for members in DIMENSIONS.values() for f in members} and len(found) == 19


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Why is that?", "pushback"),
        ("Do you mean now?", "clarifying"),
        ("When is it?", "information"),
        ("Ok.", ""),
    ],
)
def test_questions_are_of_one_kind(text: str, kind: str) -> None:
    assert question_kind(text) == kind


def test_dice_is_one_for_equals_and_zero_against_nothing() -> None:
    assert (dice(0, 0), dice(3, 3), dice(0, 2)) == (1.0, 1.0, 0.0) and dice(1, 3) == 0.5


def test_people_against_themselves_are_perfect_and_a_robot_is_not() -> None:
    same = index(HUMAN, [HUMAN], {"a": 0.9, "b": 0.1})
    assert all(v == pytest.approx(100.0) for v in same.dimensions.values())
    assert same.ece == 0.0 and same.usi == pytest.approx(100.0)
    robot = [talk(t, "As an AI — I'd be happy to help.", success=1.0) for t in ("a", "b")]
    worse = index(robot, [HUMAN], {"a": 0.9, "b": 0.1})
    assert (
        worse.dimensions["D1"] < 60
        and worse.dimensions["D4"] == pytest.approx(100 / 3)
        and worse.ece == pytest.approx(0.5)
    )


def test_calibration_error_weights_bins_by_their_tasks_and_needs_outcomes() -> None:
    model = [talk(t, "x", success=1.0) for t in "abcd"]
    human = [talk(t, "x", success=s) for t, s in zip("abcd", (1.0, 1.0, 1.0, 0.0), strict=True)]
    difficulty = {"a": 0.9, "b": 0.9, "c": 0.9, "d": 0.1}
    assert calibration_error(model, human, difficulty) == pytest.approx(0.25)
    assert calibration_error([talk("a", "x")], human, difficulty) is None


def test_reactions_at_random_match_pooled_rates_but_not_after_errors() -> None:
    human = [talk(f"t{k}", "fine, go on", "that is wrong", after=(1,)) for k in range(10)]
    random_one = [talk(f"t{k}", "that is wrong", "fine, go on", after=(1,)) for k in range(10)]
    assert index(random_one, [human]).dimensions["D4"] == pytest.approx(100.0)
    found = conditioned(random_one, human)
    assert found.after_error < 70 and found.contrast_human > 0 > found.contrast_model
    assert conditioned(human, human).after_error == pytest.approx(100.0)
    with pytest.raises(UsageError, match="after an agent's error"):
        conditioned([talk("t", "fine")], human)


def test_errors_of_agents_are_seen_in_words_and_tools() -> None:
    assert is_agent_error("I apologize for the confusion.") and is_agent_error("Done.", ["Error: no such user"])
    assert not is_agent_error("Your flight is booked.")
    assert [t.after_error for t in mark_errors(["Hi!", "My mistake, sorry."], ["hello", "ok"])] == [False, True]


REWARDS = Path(__file__).resolve().parents[3] / "shared" / "data" / "benchmarks" / "tau_bench"


@pytest.mark.skipif(not REWARDS.is_dir(), reason=f"no benchmark samples: {REWARDS} is not here")
def test_pass_hat_k_of_the_authors_own_runs_is_what_they_publish() -> None:
    from collections import defaultdict

    from envs.golden import RULES

    lines = [json.loads(x) for x in (REWARDS / "gpt-4o-airline_rewards.jsonl").read_text().splitlines()]
    tries: dict[int, list[float]] = defaultdict(list)
    for line in lines:
        tries[line["task_id"]].append(line["reward"])
    rule = RULES["pass_hat_k"]
    means = [
        sum(rule({"n": len(r), "c": sum(x == 1 for x in r), "k": k}) for r in tries.values()) / len(tries)
        for k in (1, 2, 3, 4)
    ]
    assert means == pytest.approx([0.42, 0.2733, 0.22, 0.20], abs=5e-5)
