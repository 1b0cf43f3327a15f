"""FANToM's numbers over sets: what joins, what is left out, and the F1 that scikit-learn computes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from envs import registry
from envs.registry import with_data
from envs.tasks.fantom.sets import set_numbers, weighted_f1
from envs.types import Episode, FailureReason, Outcome, Row, Say, Score, Unscored

RIGHT, WRONG, UNREADABLE = Score(1.0), Score(0.0), Score(0.0, format_error=True)
FAILED = Unscored(FailureReason.ENGINE_FAILED)


def answered(
    set_id: str,
    number: int,
    outcome: Outcome,
    kind: str = "choice",
    *,
    part: str = "tom:belief",
    correct: str = "no",
    accessibility: str = "",
    said: str = "",
    scorer: str = "strict",
) -> Episode:
    data = {"kind": kind, "part": part, "correct": [correct], "set_id": set_id, "accessibility": accessibility}
    row = Row("fantom", f"{set_id} {number}", set_id, data)
    says = (Say("reader", said),)
    return Episode(row, 0, says=says, views={}, traces={}, outcomes={"reader": outcome}, scorer=scorer)


def test_all_leaves_out_facts_and_sets_with_an_unscored_question() -> None:
    right = [answered("right", k, RIGHT) for k in range(2)]
    wrong = [answered("wrong", k, Score(float(k))) for k in range(2)]
    unscored = [answered("unscored", 0, RIGHT), answered("unscored", 1, FAILED)]
    fact = answered("right", 2, WRONG, "fact")
    assert set_numbers([*right, fact, *wrong, *unscored]) == {"ALL": 0.5}
    assert set_numbers(unscored) == {} == set_numbers([])
    # A second epoch in which one of the two questions is wrong is a second set, not a worse first one.
    assert set_numbers([*right, right[0], answered("right", 1, WRONG)]) == {"ALL": 0.5}


def test_scenarios_and_question_families_have_numbers_of_their_own() -> None:
    asked = [
        answered("1-0-0", 0, RIGHT, accessibility="inaccessible"),
        answered("1-0-0", 1, RIGHT, "list", part="tom:answerability:list", accessibility="inaccessible"),
        answered("1-0-0", 2, WRONG, "list", part="tom:info_accessibility:list", accessibility="inaccessible"),
        answered("1-0-1", 0, RIGHT, accessibility="accessible"),
    ]
    assert set_numbers(asked) == {
        "accessible ALL": 1.0,
        "inaccessible ALL": 0.0,
        "inaccessible answerability ALL": 1.0,
        "inaccessible answerability list": 1.0,
        "inaccessible information access ALL": 0.0,
        "inaccessible information access list": 0.0,
    }


def test_what_only_the_whole_conversation_tells_is_left_out() -> None:
    part = "tom:answerability:binary"
    asked = [
        answered("s", 0, WRONG, "binary", part=part, correct="no:long"),
        answered("s", 1, RIGHT, "binary", part=part, correct="yes"),
    ]
    assert set_numbers(asked) == {"ALL": 1.0, "answerability ALL": 1.0, "answerability binary F1": 1.0}


@pytest.mark.parametrize(
    ("said", "strict", "author", "f1"),
    [("no", RIGHT, RIGHT, 1.0), ("maybe", UNREADABLE, WRONG, 7 / 9), ("yes", WRONG, WRONG, 2 / 3)],
)
def test_an_unreadable_reply_takes_nothing_from_the_precision_of_the_other_answer(
    said: str, strict: Score, author: Score, f1: float
) -> None:
    part = "tom:info_accessibility:binary"
    for scorer, outcome in (("strict", strict), ("author", author)):
        first = answered("a", 0, outcome, "binary", part=part, said=said, scorer=scorer)
        second = answered("b", 0, RIGHT, "binary", part=part, said="no", scorer=scorer)
        third = answered("c", 0, RIGHT, "binary", part=part, correct="yes", said="yes", scorer=scorer)
        found = set_numbers([first, second, third])["information access binary F1"]
        assert found == pytest.approx(f1)


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(-1, 1)), min_size=1, max_size=12))
def test_weighted_f1_is_scikit_learns(pairs: list[tuple[int, int]]) -> None:
    right, said = zip(*pairs, strict=True)
    assert weighted_f1(pairs) == pytest.approx(f1_score(right, said, average="weighted", zero_division=0))


def test_rows_keep_their_set_and_scenario_and_statistics_resample_conversations(tmp_path: Path) -> None:
    base: dict[str, Any] = {"context": "Al: hi.", "complete_question": "Does Al know?", "correct_answer": "no"}
    base |= {"question_type": "tom:answerability:binary", "missed_info_accessibility": "inaccessible"}
    records = [base | {"set_id": set_id} for set_id in ("7-0-1", "7-1-0", "8-0-0")] + [base]
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps({"extra_info": r}) for r in records))
    rows = sorted(
        with_data(registry.get("fantom"), tmp_path / "rows.jsonl").rows("test", None, 0), key=lambda r: r.id
    )
    assert [r.cluster for r in rows[:3]] == ["7", "7", "8"]
    assert [r.data["set_id"] for r in rows[:3]] == ["7-0-1", "7-1-0", "8-0-0"] and rows[3].data["set_id"]
    assert {r.data["accessibility"] for r in rows} == {"inaccessible"}
