"""Two people with private wishes: turns, deals by rule, privacy, self-play through `play`."""

from __future__ import annotations

import asyncio
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import DataError
from envs.env import Done, FormatError
from envs.play import play
from envs.players.scripted import ScriptedPlayer
from envs.tasks.negotiate.corpus import dialogues, scripted_talk
from envs.tasks.negotiate.env import MAX_SPEECHES, NegotiateEnv, Talk, wishes
from envs.tasks.negotiate.scenes import (
    MAX_POINTS,
    OPENER,
    RESPONDER,
    SEATS,
    Scene,
    part_of,
    read_scene,
    scene_row,
    scenes,
)
from envs.types import Row, Score

SCENE = Scene(
    topic="meal",
    names=("Ann", "Bob"),
    tie="a cousin",
    options=("soup", "rice", "fish"),
    points={OPENER: (10, 6, 0), RESPONDER: (0, 6, 10)},
)
ENV = NegotiateEnv()


def _talk(*speeches: str, scene: Scene = SCENE) -> Talk:
    state = ENV.start(scene_row(scene, 0), random.Random(0))
    for text in speeches:
        seats = ENV.turn(state)
        assert not isinstance(seats, Done)
        heard = ENV.hear(state, seats[0], text)
        assert isinstance(heard, Talk)
        state = heard
    return state


def _values(state: Talk) -> dict[str, float]:
    outcomes = ENV.score(state)
    return {seat: o.value for seat, o in outcomes.items() if isinstance(o, Score)}


def test_an_accepted_offer_gives_each_seat_its_own_points() -> None:
    state = _talk("<offer>soup</offer>", "No. <offer>rice</offer>", "Fine. <accept/>")
    assert ENV.turn(state) == Done("agreed")
    assert _values(state) == {OPENER: 0.6, RESPONDER: 0.6}
    outcome = ENV.score(state)[OPENER]
    assert isinstance(outcome, Score) and outcome.parts == {"agreed": 1.0, "joint": 1.0}


def test_no_agreement_is_worth_nothing() -> None:
    for state in (_talk("<leave/>"), _talk(*["Hm."] * MAX_SPEECHES)):
        assert ENV.turn(state) == Done("no agreement")
        assert _values(state) == {OPENER: 0.0, RESPONDER: 0.0}


@pytest.mark.parametrize(
    "text",
    [
        "<accept/>",  # nothing on the table
        "<offer>cake</offer>",
        "<offer>soup</offer> or <offer>rice</offer>",
        "<offer>soup</offer><accept/>",
    ],
)
def test_an_act_that_cannot_be_is_a_format_error(text: str) -> None:
    assert isinstance(ENV.hear(_talk(), OPENER, text), FormatError)


def test_nobody_accepts_their_own_offer() -> None:
    state = _talk("<offer>soup</offer>", "Hm.")
    assert isinstance(ENV.hear(state, OPENER, "<accept/>"), FormatError)


@given(st.integers(0, 5000))
def test_wishes_stay_private_and_views_only_grow(seed: int) -> None:
    scene = next(scenes("train", 1, seed))
    state = ENV.start(scene_row(scene, 0), random.Random(0))
    seen = {seat: list(ENV.view(state, seat)) for seat in SEATS}
    for who, text in scripted_talk(scene, random.Random(seed)).speeches:
        heard = ENV.hear(state, who, text)
        assert isinstance(heard, Talk)
        state = heard
        for seat in SEATS:
            view = list(ENV.view(state, seat))
            assert view[: len(seen[seat])] == seen[seat]
            seen[seat] = view
    for seat, others in ((OPENER, RESPONDER), (RESPONDER, OPENER)):
        assert all(wishes(scene, others) not in message.content for message in seen[seat])


@given(st.integers(0, 5000))
def test_scripted_people_keep_the_rules_and_mostly_agree_well(seed: int) -> None:
    talk = scripted_talk(next(scenes("train", 1, seed)), random.Random(seed))
    assert isinstance(ENV.turn(talk), Done)
    assert all(0 <= value <= 1 for value in _values(talk).values())


def test_feedback_tells_what_was_missed_but_not_the_others_wishes() -> None:
    none = ENV.feedback(_talk("<leave/>"), OPENER)
    assert none is not None and not none.sees_gold
    waste = Scene(
        topic="meal",
        names=("Ann", "Bob"),
        tie="a cousin",
        options=("soup", "rice"),
        points={OPENER: (2, 8), RESPONDER: (3, 9)},
    )
    told = ENV.feedback(_talk("<offer>soup</offer>", "<accept/>", scene=waste), RESPONDER)
    assert told is not None and told.sees_gold and "rice" not in told.text and "8" not in told.text
    timid = ENV.feedback(_talk("<offer>rice</offer>", "<accept/>"), OPENER)
    assert timid is not None and not timid.sees_gold and "soup" in timid.text
    assert ENV.feedback(_talk("<offer>soup</offer>", "<accept/>"), OPENER) is None


def test_parts_share_no_scene_and_rows_repeat_with_the_seed() -> None:
    train = {scene.content_hash for scene in scenes("train", 300, 1)}
    assert not train & {scene.content_hash for scene in scenes("heldout", 100, 2)}
    assert list(scenes("train", 20, 1)) == list(scenes("train", 30, 1))[:20]
    assert all(part_of(scene) == "heldout" for scene in scenes("heldout", 20, 3))
    assert all(read_scene(scene_row(scene, 3)) == scene for scene in scenes("train", 20, 1))


@pytest.mark.parametrize(
    "change", [{"points": {OPENER: [1], RESPONDER: [1]}}, {"topic": "war"}, {"options": ["soup"]}]
)
def test_a_malformed_row_is_a_data_error(change: dict[str, object]) -> None:
    row = scene_row(SCENE, 0)
    with pytest.raises(DataError):
        ENV.start(Row(row.task, row.id, row.cluster, {**row.data, **change}), random.Random(0))


def test_in_corpus_rows_the_grounded_person_is_the_assistant() -> None:
    rows = list(dialogues("heldout", 30, 0))
    assert len(rows) == 60 and len({row["id"] for row in rows}) == 60
    for row in rows:
        roles = [message["role"] for message in row["messages"]]
        assert roles[0] == "system" and roles[-1] == "assistant" and set(roles[1::2]) == {"user"}
        assert str(MAX_POINTS) in row["messages"][0]["content"]
    assert sum(row["extra_info"]["agreed"] is not None for row in rows) > 50


def test_both_seats_play_through_the_driver() -> None:
    players = {
        OPENER: ScriptedPlayer(["<offer>soup</offer>", "<accept/>"]),
        RESPONDER: ScriptedPlayer(["<offer>rice</offer>"]),
    }
    episode = asyncio.run(play(ENV, scene_row(SCENE, 0), players, seed=1))
    assert {seat: o.value for seat, o in episode.outcomes.items() if isinstance(o, Score)} == {
        OPENER: 0.6,
        RESPONDER: 0.6,
    }
