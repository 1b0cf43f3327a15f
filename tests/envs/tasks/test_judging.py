"""Judging answers: orders, readings, ties, and that no constant or dumped verdict is paid under strict."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from common.errors import DataError
from envs import registry
from envs.tasks.judging.examples import PAIRS, RANKINGS
from envs.tasks.judging.parse import strict_letter, strict_ratings
from envs.tasks.judging.rows import Contest, rewardbench_row, rm_r1_row
from envs.tasks.judging.task import ties_score
from envs.tasks.schema import data_of, rows_of_records
from envs.types import Episode, Row, Score
from tests.envs.tasks.judged import played, rows_from_parquet, value

BENCH, PAIRWISE = registry.get("rewardbench2"), registry.get("rm_r1")
FACT, TIED, REF = rows_of_records(RANKINGS, rewardbench_row)
HOURS, CLEANERS = rows_of_records(PAIRS, rm_r1_row)


def say(row: Row, text: str, profile: Any = "strict") -> Episode:
    return played(BENCH if row.task == "rewardbench2" else PAIRWISE, row, {"judge": [text]}, profile=profile)


def letters(row: Row) -> tuple[str, list[str]]:
    """The right letter and all letters."""
    contest = data_of(Contest, row)
    return contest.letters[contest.right[0]], list(contest.letters)


@pytest.mark.parametrize("number", range(len(RANKINGS)))
def test_published_rankings_load_unchanged(number: int, tmp_path: Path) -> None:
    assert rows_from_parquet(BENCH, RANKINGS[number], tmp_path) == [
        rows_of_records(RANKINGS, rewardbench_row)[number]
    ]


@pytest.mark.parametrize("number", range(len(PAIRS)))
def test_published_pairs_load_unchanged(number: int, tmp_path: Path) -> None:
    (row,) = rows_from_parquet(PAIRWISE, PAIRS[number], tmp_path)
    assert row.data == rows_of_records(PAIRS, rm_r1_row)[number].data


def test_the_order_depends_on_the_content_and_favours_no_place() -> None:
    firsts = []
    for i in range(200):
        record = {"question": f"q{i}", "answer_a": f"yes {i}", "answer_b": f"no {i}", "winner": "model_a"}
        row = rm_r1_row(record, i, where="x")
        swapped = {**record, "answer_a": f"no {i}", "answer_b": f"yes {i}", "winner": "model_b"}
        assert rm_r1_row(swapped, i, where="x").data == row.data
        firsts.append(row.data["right"] == [0])
    assert 70 < sum(firsts) < 130


@pytest.mark.parametrize("row", [FACT, HOURS, CLEANERS])
def test_one_right_letter_in_one_block_is_right(row: Row) -> None:
    right, every = letters(row)
    wrong = next(letter for letter in every if letter != right)
    assert value(say(row, f"Because.\n<answer>[[{right}]]</answer>"), "judge") == 1
    assert value(say(row, f"<answer>{wrong}</answer>"), "judge") == 0


@pytest.mark.parametrize("row", [FACT, TIED, HOURS])
def test_silence_dumps_and_mentions_earn_nothing_under_strict(row: Row) -> None:
    right, every = letters(row)
    dump = " ".join(f"<answer>[[{letter}]]</answer>" for letter in every)
    for text in ("", "all are good", dump, f"[[{right}]]", f"<answer>{' '.join(every)}</answer>"):
        outcome = say(row, text).outcomes["judge"]
        assert isinstance(outcome, Score) and outcome.value == 0 and outcome.format_error
    assert value(say(FACT, "I cannot say", "soul"), "judge") == 0.25
    assert value(say(HOURS, "I cannot say", "soul"), "judge") == 0


def test_ratings_must_separate_right_from_wrong() -> None:
    contest = data_of(Contest, TIED)

    def rated(right: int, wrong: int) -> str:
        each = (f"{letter}: {right if i in contest.right else wrong}" for i, letter in enumerate(contest.letters))
        return f"<answer>{', '.join(each)}</answer>"

    assert value(say(TIED, rated(8, 3)), "judge") == 1
    for constant in (1, 5, 10):
        assert value(say(TIED, rated(constant, constant)), "judge") == 0
    assert value(say(TIED, rated(3, 8)), "judge") == 0
    assert strict_ratings("<answer>A: 7, B: 11</answer>", "AB") is None
    assert strict_ratings("<answer>A: 7, A: 3</answer>", "AB") is None
    assert strict_ratings("<answer>B=7; [[A]]: 3</answer>", "AB") == (3, 7)
    assert strict_letter("<think><answer>A</answer></think><answer>B</answer>", "AB") == "B"


def test_rewardbench_score_weighs_ties_as_published() -> None:
    assert BENCH.aggregate is not None and BENCH.samples is not None
    episodes = [say(row, BENCH.samples(row, "judge")[0 if row is FACT else 1]) for row in (FACT, TIED, REF)]
    # Right ones are rated 9 throughout, wrong ones 3: no spread, so the smooth term is 0 and the rest is full.
    assert BENCH.aggregate(episodes) == {"accuracy Factuality": 1.0, "ties": 1.0, "overall": 1.0}
    assert BENCH.aggregate(episodes[1:2]) == {}


def test_the_ties_score_counts_every_epoch_and_not_the_last_one_alone() -> None:
    def rated(row: Row, right: tuple[int, int], wrong: int) -> Episode:
        contest = data_of(Contest, row)
        ratings = [wrong] * len(contest.letters)
        for place, index in enumerate(contest.right):
            ratings[index] = right[place % 2]
        shown = ", ".join(f"{letter}: {r}" for letter, r in zip(contest.letters, ratings, strict=True))
        return say(row, f"<answer>{shown}</answer>")

    ref = rated(REF, (9, 9), 2)
    # Right in both plays; in the second the right ones lie farther apart (4) than the wrong ones from them (1).
    clear, blurred = rated(TIED, (9, 8), 2), rated(TIED, (9, 5), 4)
    alone = [ties_score(plays) for plays in ([ref, clear], [ref, blurred])]
    assert alone[0] is not None and alone[1] is not None and alone[1] < 0.6 + 0.2 < alone[0]
    assert ties_score([ref, clear, ref, blurred]) == pytest.approx((alone[0] + alone[1]) / 2)
    assert ties_score([ref, blurred, ref, clear]) == pytest.approx((alone[0] + alone[1]) / 2)


@pytest.mark.parametrize("change", [{"winner": "tie"}, {"answer_b": None}, {"answer_a": ""}])
def test_a_malformed_pair_is_refused(change: dict[str, Any]) -> None:
    record = {"question": "q", "answer_a": "x", "answer_b": "y", "winner": "a", **change}
    with pytest.raises(DataError, match="here"):
        rm_r1_row(record, 0, where="here")


def test_contests_about_one_question_are_one_cluster() -> None:
    one, two = ({"question": "2 + 2?", "answer_a": a, "answer_b": "5", "winner": "a"} for a in ("4", "four"))
    first, second = (rm_r1_row(r, n, where="here") for n, r in enumerate((one, two)))
    assert first.cluster == second.cluster != HOURS.cluster
    talks = [{"conversation_1": a, "conversation_2": "User: hm", "winner": "a"} for a in ("User: hi", "User: ho")]
    assert len({rm_r1_row(r, n, where="here").cluster for n, r in enumerate(talks)}) == 2
