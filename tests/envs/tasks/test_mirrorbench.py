"""MirrorBench: real samples, what each seat sees, and what earns nothing under strict."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from envs import registry
from envs.check import check
from envs.registry import with_data
from envs.tasks.mirrorbench.examples import RECORDS
from envs.tasks.mirrorbench.rows import from_record, gives_away
from envs.tasks.schema import rows_of_records
from envs.types import Episode, FailureReason, Row, Score, Unscored
from tests.envs.tasks.judged import SAMPLES, FixedJudge, played, rows_from_parquet, value

SPEC = registry.get("mirrorbench")
BIKE, MUSEUM = rows_of_records(RECORDS, from_record)
FILES = sorted((SAMPLES / "mirrorbench").glob("*_20.jsonl"))


def judge(**changes: Any) -> FixedJudge:
    part = {"reasoning": "r", "score": 6}
    return FixedJudge(
        SPEC,
        {
            "mirrorbench.user_turns": {"style": part, "realism": part, "context": {**part, "score": 9}},
            "mirrorbench.gteval": {"reasoning": "r", "score": 0.5},
            "mirrorbench.critic": {"feedback": changes.get("advice", "Shorter.")},
        },
    )


def say(row: Row, *texts: str, profile: Any = "strict", **options: Any) -> Episode:
    says = {"user": list(texts), "assistant": ["Which part of it?"]}
    return played(SPEC, row, says, judge=judge(), profile=profile, **options)


@pytest.mark.skipif(not FILES, reason=f"no benchmark samples: {SAMPLES} is not here")
def test_all_real_samples_load_play_and_score_and_show_no_seat_what_is_not_its_own() -> None:
    assert SPEC.private is not None
    count = 0
    for path in FILES:
        for row in with_data(SPEC, path).rows("test", None, 0):
            episode = say(row, "ok so what now")
            assert value(episode, "user") == 0.7
            for owner, texts in SPEC.private(row).items():
                views = [m.content for seat, view in episode.views.items() if seat != owner for m in view]
                assert not any(text in content for text in texts for content in views), row.id
            count += 1
    assert count == 80
    assert check(with_data(SPEC, FILES[0]), rows=list(with_data(SPEC, FILES[0]).rows("test", 2, 0))) == []


@pytest.mark.parametrize("number", range(len(RECORDS)))
def test_published_rows_load_unchanged(number: int, tmp_path: Path) -> None:
    assert rows_from_parquet(SPEC, RECORDS[number], tmp_path) == [rows_of_records(RECORDS, from_record)[number]]


def test_roles_follow_the_real_conversation_and_an_opening_assistant_is_replayed() -> None:
    episode = say(BIKE, "a", "b")
    assert [say.seat for say in episode.says] == ["user", "assistant", "user"]
    museum = say(MUSEUM, "the big one")
    assert [say.seat for say in museum.says] == ["user"]
    assert museum.views["user"][1].content == MUSEUM.data["turns"][0]["content"]


def test_an_example_that_is_the_real_turn_is_not_shown() -> None:
    assert BIKE.data["examples"] == ["my brakes squeak when its wet, normal?"]
    assert gives_away("Yes!", ["yes"]) and not gives_away("yes please do", ["yes"])


def test_silence_copies_and_failed_judges_earn_nothing() -> None:
    silent = say(BIKE, "User: ").outcomes["user"]
    assert isinstance(silent, Score) and silent.value == 0 and silent.format_error
    assert value(say(BIKE, str(BIKE.data["description"])), "user") == 0
    assert value(say(BIKE, "hm", "Which part of it?"), "user") > 0  # one short echo among own words
    echo = "You should check the limit screw of the front derailleur first of all"
    copied = played(SPEC, BIKE, {"user": ["hi", echo], "assistant": [echo]}, judge=judge())
    assert value(copied, "user") == 0
    failed = played(SPEC, BIKE, {"user": ["hi"]}, judge=FixedJudge(SPEC, {}))
    assert failed.outcomes == {"user": Unscored(FailureReason.JUDGE_FAILED, "mirrorbench.user_turns: down")}


def test_soul_and_author_take_the_one_similarity() -> None:
    assert {value(say(BIKE, "hi", profile=p), "user") for p in ("soul", "author")} == {0.5}


def test_lexical_measures_are_distances_from_the_human_never_a_reward() -> None:
    short, long = say(BIKE, "hi"), say(BIKE, "well i guess the thing is that the chain is off again and again")
    assert value(short, "user") == value(long, "user")
    assert SPEC.aggregate is not None
    found = SPEC.aggregate([long, say(MUSEUM, "main building please, on sunday")])
    assert set(found) <= {"mattr z", "hdd z", "yules_k z"} and found


def test_the_critic_sees_the_real_user_and_its_quotes_are_cut_out() -> None:
    env = SPEC.env("strict")
    state = env.hear(env.start(BIKE, None), "user", "hi")
    ask = env.feedback(state, "user")
    schema = next(j.schema for j in SPEC.judges if j.id == ask.spec)
    advice = schema(feedback="Be shorter. Say chain keeps falling off my bike, what do i do. No greeting.")
    assert ask.sees_gold and SPEC.feedback.sees_gold
    assert ask.text(advice) == "Be shorter. Say …. No greeting."
    assert "falling off" in json.dumps(ask.fields)
