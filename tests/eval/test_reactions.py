"""Reactions where there is something to react to: random annoyance matches pooled rates and is found out here."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from pathlib import Path

import pytest

from common.errors import DataError
from envs import registry
from envs.golden import RULES
from envs.play import play
from envs.players.scripted import ScriptedPlayer
from envs.tasks.tau_usi.env import AGENT, CUSTOMER
from envs.tasks.tau_usi.features import measure
from envs.tasks.tau_usi.prompts import STOP
from envs.types import Score
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
    spec = registry.get("tau_usi")
    row = next(iter(spec.rows("test", 1, 0)))
    unknown = '<call>{"name": "think_again", "arguments": {}}</call>'
    fine = '<call>{"name": "think", "arguments": {"thought": "so"}}</call>'
    agent = [
        unknown,
        "Shipped.",
        fine,
        "My mistake.",
        "<call>{}</call>",
        "Done.",
        "Really done.",
        "Well.",
        "Goodbye.",
    ]
    customer = ["hi", "no", "ok", "thanks", "Error: that is what I see", "bye", STOP, "{}"]
    players = {AGENT: ScriptedPlayer(tuple(agent)), CUSTOMER: ScriptedPlayer(tuple(customer))}
    episode = asyncio.run(play(spec.env("author"), row, players, seed=0, limits=spec.limits))
    assert isinstance(episode.outcomes[CUSTOMER], Score)
    found = {turn.text: turn.after_error for turn in customer_turns(episode)}
    # After a tool that is not there, an admission and a malformed call.
    assert [text for text, after_error in found.items() if after_error] == ["no", "ok", "thanks"]


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
