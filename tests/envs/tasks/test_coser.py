"""CoSER: thoughts stay private, the director's choices, the authors' formula, and no pay for length."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import DataError
from envs import registry
from envs.golden import compare
from envs.tasks.coser.examples import RECORDS
from envs.tasks.coser.prompts import DIMENSIONS
from envs.tasks.coser.rows import CHARACTERS, from_record
from envs.tasks.coser.speech import public, without_thoughts
from envs.tasks.schema import rows_of_records
from envs.types import Episode, FailureReason, Row, Score, Unscored
from tests.envs.tasks.judged import FixedJudge, played, rows_from_parquet, value

SPEC = registry.get("coser")
MILL, FERRY = rows_of_records(RECORDS, from_record)
THOUGHT = "He must never learn of the hidden drawer"
PUBLISHED = (
    *(([2, 3, 2, 3], 11, 66.5), ([3, 3, 3, 2], 11, 61.5), ([3, 4, 3, 5], 11, 41.5), ([3, 2, 2, 3], 11, 66.5)),
    *(([3, 2, 2], 5, 72.5), ([3, 4, 3, 4], 5, 37.5), ([3, 3, 2, 4], 5, 47.5), ([3, 2], 5, 82.5)),
    *(([4, 3, 2, 3], 13, 59.5), ([3, 2, 3, 4], 13, 59.5), ([3, 3, 2, 3], 13, 64.5), ([3, 3], 13, 89.5)),
)
"""Severities, messages and score of every dimension in the authors' published evaluation of gpt-4o."""
ODD = ((["3", 3.0], 0, 100), ([], 0, 100), ([5] * 9, 4, 0), ([1], 40, 100))


def judge(rating: int = 7, severities: tuple[int, ...] = (4,)) -> FixedJudge:
    four = {name: {"reasoning": "r", "score": rating} for name in DIMENSIONS}
    flaws = {"flaws": [{"instance": "i", "severity": s} for s in severities]}
    verdicts: dict[str, Any] = {f"coser.flaws.{name}": flaws for name in DIMENSIONS}
    return FixedJudge(SPEC, {"coser.four": four, "coser.critic": {"feedback": "Slower."}, **verdicts})


def act(row: Row, line: str = "Good evening.", profile: Any = "strict", asked: Any = None, **says: Any) -> Episode:
    lines = {seat: [line] for seat in CHARACTERS} | {"narrator": ["A door slams."], "director": ["nobody"], **says}
    return played(SPEC, row, lines, judge=asked or judge(), profile=profile)


@pytest.mark.parametrize("number", range(len(RECORDS)))
def test_published_rows_load_unchanged(number: int, tmp_path: Path) -> None:
    assert rows_from_parquet(SPEC, RECORDS[number], tmp_path) == [rows_of_records(RECORDS, from_record)[number]]


def test_the_authors_form_is_read_too() -> None:
    circumstance = json.loads(RECORDS[0]["extra_info"]["circumstance"])
    assert from_record(circumstance, 0, where="x").data == MILL.data


def test_every_character_is_a_seat_and_shares_the_scenes_verdict() -> None:
    asked = judge()
    episode = act(MILL, asked=asked)
    assert {say.seat for say in episode.says} <= {"character_1", "character_2", "narrator", "director"}
    assert sum(say.seat != "director" for say in episode.says) == 10
    assert set(episode.outcomes) == set(SPEC.seats) and len(asked.asked) == 1
    assert value(episode, "character_1") == pytest.approx(6 / 9)
    assert value(act(MILL, profile="soul"), "character_1") == pytest.approx(0.667)


def test_thoughts_and_motives_reach_no_other_seat_and_no_judge() -> None:
    asked = judge()
    episode = act(MILL, f"[{THOUGHT}] Good evening. [{THOUGHT}", asked=asked)
    own = {say.seat for say in episode.says}
    for seat, view in episode.views.items():
        heard = [m.content for m in view if m.role == "user"]
        assert not any(THOUGHT in text for text in heard), seat
    assert own and THOUGHT not in json.dumps(asked.asked[0][1])
    assert SPEC.private is not None
    for row in (MILL, FERRY):
        played_row = act(row)
        for owner, texts in SPEC.private(row).items():
            for seat, view in played_row.views.items():
                assert seat == owner or not any(t in m.content for m in view for t in texts)


@given(st.text(alphabet="ab[] "))
def test_nothing_in_brackets_is_public(text: str) -> None:
    depth, hidden = 0, ""
    shown = without_thoughts(text.replace("a", "x") if "[" not in text else text)
    for letter in text:
        depth += (letter == "[") - (letter == "]" and depth > 0)
        hidden += letter if depth and letter in "ab" else ""
    assert len([c for c in shown if c in "abx"]) + len(hidden) == len([c for c in text if c in "ab"])


def test_a_speakers_name_is_not_said_twice_and_an_unclosed_thought_hides_the_rest() -> None:
    assert public("Ansa: (sits) No. [why", "Ansa") == "(sits) No."
    assert public("[a [b] c] Yes", "Ansa") == "Yes"


def test_silence_earns_nothing_under_strict() -> None:
    empty = act(MILL, " ").outcomes["character_1"]
    assert isinstance(empty, Score) and empty.value == 0 and empty.format_error
    assert value(act(MILL, "[I only think]"), "character_1") == 0


def test_more_and_longer_messages_earn_nothing_under_strict_and_do_under_author() -> None:
    ends = ["Ansa", "Old Henrik", "Ansa", "Old Henrik", "Ansa", "<END CHAT>"]
    picks = ["Old Henrik", "Ansa"] * 5
    short, long = (act(MILL, director=director) for director in (picks[:4] + ends[-1:], picks))
    assert len(short.says) < len(long.says)
    assert value(short, "character_1") == value(long, "character_1")
    few, many = (act(MILL, profile="author", director=d) for d in (picks[:4] + ends[-1:], picks))
    assert value(many, "character_1") - value(few, "character_1") == pytest.approx(0.015 * 5)
    asked = judge()
    act(MILL, "word " * 400, asked=asked)
    assert max(len(line.split()) for line in asked.asked[0][1]["transcript"].splitlines()) < 130


def test_the_authors_formula_pays_for_length_and_lets_odd_severities_pass() -> None:
    rows = [
        {"kind": "coser_dimension", "severities": s, "messages": n, "author": score}
        for s, n, score in (*PUBLISHED, *ODD)
    ]
    assert compare(rows) == []


def test_the_director_names_who_speaks_and_cannot_end_too_early() -> None:
    seats = [say.seat for say in act(MILL, director=["Environment", "ansa."]).says if say.seat != "director"]
    assert seats[:3] == ["character_1", "narrator", "character_1"]
    ended = act(MILL, director=["<END CHAT>"])
    assert sum(say.seat != "director" for say in ended.says) == 5
    # A director who names nobody: the draw depends on the row's setting only.
    assert act(MILL).says == act(MILL).says


def test_given_messages_open_the_scene() -> None:
    episode = act(FERRY)
    assert episode.says[0].seat == "narrator" or episode.says[0].seat in CHARACTERS
    assert any("Rain begins" in m.content for m in episode.views["character_1"])


def test_a_failed_judge_is_no_score() -> None:
    failed = act(MILL, asked=FixedJudge(SPEC, {}))
    assert set(failed.outcomes.values()) == {Unscored(FailureReason.JUDGE_FAILED, "coser.four: down")}


def test_the_critic_knows_the_original_and_does_not_quote_it() -> None:
    env = SPEC.env("strict")
    state = env.hear(env.start(MILL, Random(0)), "character_1", "Why?")
    ask = env.feedback(state, "character_1")
    schema = next(j.schema for j in SPEC.judges if j.id == ask.spec)
    told = schema(
        feedback="Be harder. Say then read me this, as in the stones wanted a holiday, and I gave them one."
    )
    assert ask.sees_gold and ask.text(told) == "Be harder. Say …, as in …."
    assert env.feedback(state, "character_2") is None and env.feedback(state, "character_8") is None


def test_a_scene_without_speakers_or_with_too_many_is_refused() -> None:
    for speakers in (["Environment"], [f"c{i}" for i in range(9)]):
        circumstance = {**json.loads(RECORDS[0]["extra_info"]["circumstance"]), "speaking_characters_w_env": speakers}
        with pytest.raises(DataError):
            from_record({"circumstance": circumstance}, 0, where="x")
