"""Replay, fork and the person in the terminal."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from envs.engine import Sampling
from envs.play import play
from envs.players.base import Player
from envs.players.chat import joined
from envs.players.engine import EnginePlayer
from envs.players.human import HumanPlayer
from envs.players.replay import ReplayPlayer
from envs.players.scripted import ScriptedPlayer
from envs.types import Episode, FailureReason, Message, Unscored
from tests.envs.table import Dialogue, SeededEngine, byte_renderer, row

RENDERER = byte_renderer()


def player() -> EnginePlayer:
    return EnginePlayer(SeededEngine(RENDERER), RENDERER, Sampling(max_tokens=12))


def run(players: dict[str, Player], **options: Any) -> Episode:
    return asyncio.run(play(Dialogue(rounds=4), row(), players, **{"seed": 5, **options}))


def test_a_replayed_episode_equals_the_recorded_one() -> None:
    recorded = run({"a": player(), "b": player()}, learnable=["a"])
    replayed = run({"a": ReplayPlayer(recorded), "b": ReplayPlayer(recorded)})
    assert replace(replayed, wall_s=0.0) == replace(recorded, wall_s=0.0)


def test_a_fork_goes_on_from_the_recorded_tokens_with_a_new_player() -> None:
    recorded = run({"a": player(), "b": player()}, learnable=["a"])
    goes_on = player()
    fork = ReplayPlayer(recorded, turns=2, then=goes_on)
    same = run({"a": fork, "b": ReplayPlayer(recorded, turns=2, then=player())}, learnable=["a"])
    assert replace(same, wall_s=0.0) == replace(recorded, wall_s=0.0)
    other = run({"a": fork, "b": ReplayPlayer(recorded, turns=2, then=player())}, learnable=["a"], seed=6)
    assert other.says[:4] == recorded.says[:4] and other.says[4:] != recorded.says[4:]
    engine: Any = goes_on.engine
    prompt = engine.calls[0][0]
    assert recorded.traces["a"].ids[: len(prompt)] == prompt


def test_a_person_sees_only_the_seats_view_and_may_leave() -> None:
    shown: list[str] = []
    lines = iter(["hello", "", "again", "/quit"])
    person = HumanPlayer(show=shown.append, read=lambda prompt: next(lines))
    episode = run({"a": ScriptedPlayer(["one", "two", "three"]), "b": person})
    outcome = episode.outcomes["a"]
    assert isinstance(outcome, Unscored) and outcome.reason == FailureReason.PARTNER_FAILED
    assert [s.text for s in episode.says if s.seat == "b"] == ["hello", "again"]
    assert "[user] a: one" in shown and not any("Number" in line for line in shown)


def test_an_endpoint_gets_alternating_roles() -> None:
    view = [Message("system", "s"), Message("user", "a"), Message("user", "b"), Message("assistant", "c")]
    assert joined(view) == (Message("system", "s"), Message("user", "a\n\nb"), Message("assistant", "c"))
