"""UserLLM: directions of the measures, and that copying, silence and never ending earn nothing under strict."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import DataError
from envs import registry
from envs.tasks.schema import rows_of_records
from envs.tasks.userllm.examples import RECORDS
from envs.tasks.userllm.measures import (
    DIRECTIONS,
    END,
    OVERLAP,
    borrowed,
    content_words,
    copies,
    first_turn_diversity,
    mentioned,
    overlap,
    termination_f1,
)
from envs.tasks.userllm.rows import from_record
from envs.types import Episode, FailureReason, Row, Score, Unscored
from tests.envs.tasks.judged import FixedJudge, played, rows_from_parquet, value

SPEC = registry.get("userllm")
FIRST, LAST, CHOICES, HELD = rows_of_records(RECORDS, from_record)
GOOD = {"reasoning": "r", "pursues_intent": True, "speaks_as_user": True, "human_like": 8}


def judge(**changes: Any) -> FixedJudge:
    reaction = {"reasoning": "r", "verdict": "refused", "speaks_as_user": True}
    return FixedJudge(
        SPEC,
        {"userllm.turn": {**GOOD, **changes}, "userllm.reaction": reaction, "userllm.detector": {"verdict": "AI"}},
    )


def say(row: Row, text: str, profile: Any = "strict", **changes: Any) -> Episode:
    return played(SPEC, row, {"user": [text]}, judge=judge(**changes), profile=profile)


@pytest.mark.parametrize("number", range(len(RECORDS)))
def test_published_rows_load_unchanged(number: int, tmp_path: Path) -> None:
    assert rows_from_parquet(SPEC, RECORDS[number], tmp_path) == [rows_of_records(RECORDS, from_record)[number]]


def test_an_instruction_in_front_of_the_intent_is_not_part_of_it() -> None:
    intent = "You are a user chatting with an assistant language model to: find a quiet beach"
    record = {"extra_info": {**RECORDS[0]["extra_info"], "intent": intent, "is_last_turn": "y"}}
    (row,) = rows_of_records([record], from_record)
    assert row.data["intent"] == "find a quiet beach" and row.data["last"] is True


def test_overlap_is_lower_is_better_and_every_other_measure_higher() -> None:
    assert {name for name, metric in DIRECTIONS.items() if not metric.higher_is_better} == {OVERLAP}
    intent = str(FIRST.data["intent"])
    assert (
        overlap(intent, intent) == 1.0 and overlap(intent, "kinda unjust, no?") == 0.0 and overlap(intent, "") is None
    )


def test_a_copied_intent_earns_nothing_and_own_words_earn_more_than_borrowed_ones() -> None:
    intent = str(FIRST.data["intent"])
    for text in (intent, intent.upper(), f"Hello! {intent}", intent[9:70]):
        assert value(say(FIRST, text), "user") == 0
    own, borrowed = (
        value(say(FIRST, text), "user") for text in ("kinda unjust, no?", "fair that towns lose stations?")
    )
    assert own == pytest.approx(0.9) and borrowed < own
    # OdysSim's rule pays the copy best; it is kept for comparison and never used as reward.
    assert value(say(FIRST, intent, "soul"), "user") > value(say(FIRST, "kinda unjust, no?", "soul"), "user")


def test_a_turn_padded_with_other_words_earns_less_than_the_plain_one() -> None:
    plain = "kinda odd how folks out here keep losing train stations, honest question, fair or plain wrong?"
    filler = ["weather", "sunny", "coffee", "lovely", "garden", "yesterday", "uncle", "painter", "fence", "purple"]
    values = [value(say(FIRST, f"{plain} {' '.join((filler * 20)[:n])}"), "user") for n in (0, 20, 40, 80, 200)]
    # Padding never pays, even before the turn is too long; beyond sixty words every word costs.
    assert values[0] >= values[1] >= values[2] > values[3] > values[4] > 0
    short = "fair that towns lose stations?"
    assert value(say(FIRST, f"{short} {' '.join(filler)}"), "user") == value(say(FIRST, short), "user")
    assert value(say(FIRST, f"{short} {' '.join(filler * 10)}"), "user") < value(say(FIRST, short), "user")
    padded = say(FIRST, f"{short} {' '.join(filler * 10)}").outcomes["user"]
    assert isinstance(padded, Score) and padded.parts["length factor"] == pytest.approx(60 / 105)


WORDS = st.lists(st.sampled_from(["the", "fair", "towns", "lose", "train", "kinda", "odd", "bus"])).map(" ".join)


@given(WORDS, WORDS)
def test_no_added_word_hides_what_is_taken_from_the_intent(turn: str, more: str) -> None:
    intent = str(FIRST.data["intent"])
    if content_words(turn):
        assert borrowed(intent, f"{turn} {more}") >= borrowed(intent, turn)


@pytest.mark.parametrize("row", [FIRST, LAST, CHOICES, HELD])
def test_an_empty_turn_earns_nothing(row: Row) -> None:
    outcome = say(row, "  ").outcomes["user"]
    assert isinstance(outcome, Score) and outcome.value == 0 and outcome.format_error
    assert value(say(CHOICES, "", "soul"), "user") == 1.0


def test_ending_counts_where_the_real_user_ended_and_nowhere_else() -> None:
    assert value(say(LAST, END), "user") == 1 and value(say(LAST, "so what else"), "user") == 0
    assert value(say(FIRST, END), "user") == 0 and value(say(HELD, f"no {END}"), "user") == 0
    assert termination_f1([False, False], [True, False]) == 0.0
    assert termination_f1([True, True], [True, False]) == pytest.approx(2 / 3)
    assert termination_f1([False], [False]) is None


def test_gibberish_and_an_assistants_voice_earn_nothing() -> None:
    assert value(say(FIRST, "xq zzz", pursues_intent=False), "user") == 0
    assert value(say(CHOICES, "Certainly, let me explain.", speaks_as_user=False), "user") == 0


def test_naming_an_answer_is_answering_but_reading_out_all_options_is_asking() -> None:
    assert mentioned(CHOICES.data["choices"], "Stand, oven and bedding") == 2
    assert value(say(CHOICES, "the stand, right?"), "user") == 0
    assert value(say(CHOICES, "stand, bed, bookshelf or oven?"), "user") == 1
    assert value(say(CHOICES, "stand, bed, bookshelf or oven?", "soul"), "user") == 0


def test_a_refused_suggestion_counts_and_a_failed_judge_is_no_score() -> None:
    assert value(say(HELD, "no, tell me about the first one"), "user") == 1
    failed = played(SPEC, HELD, {"user": ["no"]}, judge=FixedJudge(SPEC, {}))
    assert failed.outcomes == {"user": Unscored(FailureReason.JUDGE_FAILED, "userllm.reaction: down")}


def test_feedback_by_rule_names_no_keyword_of_the_intent() -> None:
    env = SPEC.env("strict")
    state = env.hear(env.start(FIRST, None), "user", str(FIRST.data["intent"]))
    hint = env.feedback(state, "user")
    assert hint is not None and not hint.sees_gold and "station" not in hint.text
    gone_on = env.feedback(env.hear(env.start(LAST, None), "user", "and then"), "user")
    assert gone_on is not None and gone_on.sees_gold


def test_measures_over_an_evaluation() -> None:
    assert SPEC.aggregate is not None
    found = SPEC.aggregate([say(FIRST, "kinda unjust"), say(FIRST, "train gone, why"), say(LAST, END)])
    assert found == {"first-turn diversity": 1.0, "intent overlap": 0.25, "termination F1": 1.0}
    assert first_turn_diversity(["a b", "a b"]) == 0.0 and first_turn_diversity(["a"]) is None
    assert copies("one two three four five", "one two three four") and not copies("one two", "one two")


@pytest.mark.parametrize("change", [{"source": "quora"}, {"is_last_turn": "perhaps"}, {"intent": ""}])
def test_a_malformed_row_is_refused(change: dict[str, str]) -> None:
    with pytest.raises(DataError, match="example 1"):
        rows_of_records([{"extra_info": {**RECORDS[0]["extra_info"], **change}}], from_record)
