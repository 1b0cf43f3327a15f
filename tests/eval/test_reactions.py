"""Reactions where there is something to react to: random annoyance matches pooled rates and is found out here."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import pytest

from common.errors import DataError
from envs.golden import RULES
from envs.tasks.tau_usi.env import AGENT, CUSTOMER
from envs.tasks.tau_usi.features import measure
from envs.types import Episode, Message, Row, Say, Score
from eval.reactions import FEATURES, CustomerTurn, customer_turns, reactions, read_people

CALM, CROSS = "fine, go on", "that is wrong and unacceptable"
PEOPLE = [turn for _ in range(10) for turn in (CustomerTurn(CALM, False), CustomerTurn(CROSS, True))]
RANDOM = [turn for _ in range(10) for turn in (CustomerTurn(CROSS, False), CustomerTurn(CALM, True))]


def test_annoyance_at_random_has_the_same_pooled_rates_and_the_opposite_contrast() -> None:
    pooled = [{f: measure([t.text for t in side])[f] for f in FEATURES} for side in (PEOPLE, RANDOM)]
    assert pooled[0] == pooled[1]
    alike, other = reactions(PEOPLE, PEOPLE), reactions(RANDOM, PEOPLE)
    assert alike is not None and other is not None
    assert alike.d4_after_error == alike.d4_otherwise == 100.0 and alike.contrast > 0.3
    assert other.d4_after_error is not None and other.d4_after_error < 70 and other.contrast == -alike.contrast


def test_without_an_error_there_is_nothing_to_react_to() -> None:
    assert reactions([CustomerTurn(CALM, False)]) is None
    alone = reactions(PEOPLE)
    assert alone is not None and alone.d4_after_error is None and "10 agent errors" in alone.line()


def test_errors_are_seen_in_what_the_agent_admits_and_in_its_tools() -> None:
    says = [(CUSTOMER, "hi"), (AGENT, "<call>"), (AGENT, "Shipped."), (CUSTOMER, "no"), (AGENT, "My mistake.")]
    says += [(CUSTOMER, "ok"), (AGENT, "Done."), (CUSTOMER, "bye")]
    view = [
        ("user", "hi"),
        ("assistant", "<call>"),
        ("user", "Error: user not found"),
        ("assistant", "Shipped."),
    ]
    view += [("user", "no"), ("assistant", "My mistake."), ("user", "ok"), ("assistant", "Done."), ("user", "bye")]
    episode = Episode(
        row=Row("tau_usi", "0", "c", {}),
        seed=0,
        says=tuple(Say(seat, text) for seat, text in says),
        views={AGENT: tuple(Message(role, text) for role, text in view)},  # type: ignore[arg-type]
        traces={},
        outcomes={CUSTOMER: Score(1.0)},
    )
    assert [t.after_error for t in customer_turns(episode)] == [False, True, True, False]


def test_peoples_turns_are_read_and_wrong_ones_refused(tmp_path: Path) -> None:
    path = tmp_path / "people.jsonl"
    lines = [{"text": CALM, "conversation": "a"}, {"text": CROSS, "conversation": "a", "after_error": True}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert read_people(path) == [CustomerTurn(CROSS, True)]
    path.write_text('{"text": 3, "after_error": true}\n')
    with pytest.raises(DataError, match="line 1"):
        read_people(path)


REWARDS = Path(__file__).resolve().parents[3] / "shared" / "data" / "benchmarks" / "tau_bench"


@pytest.mark.skipif(not REWARDS.is_dir(), reason=f"no benchmark samples: {REWARDS} is not here")
def test_pass_hat_k_of_the_authors_own_runs_is_what_they_publish() -> None:
    tries: dict[int, list[float]] = defaultdict(list)
    for line in map(json.loads, (REWARDS / "gpt-4o-airline_rewards.jsonl").read_text().splitlines()):
        tries[line["task_id"]].append(line["reward"])
    rule = RULES["pass_hat_k"]
    means = [
        sum(rule({"n": len(r), "c": sum(x == 1 for x in r), "k": k}) for r in tries.values()) / len(tries)
        for k in (1, 2, 3, 4)
    ]
    assert means == pytest.approx([0.42, 0.2733, 0.22, 0.20], abs=5e-5)
