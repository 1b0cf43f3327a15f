"""SocSci210: what one answer earns, what the middle of the scale earns, and what is told of a study's answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import DataError
from envs import registry
from envs.registry import TaskSpec, with_data
from envs.tasks.socsci210.rows import Response
from envs.tasks.socsci210.scorers import gain_over_middle, read_answer, worth
from envs.tasks.socsci210.task import EXAMPLES, survey_answer
from envs.types import Episode, FailureReason, Row, Unscored
from tests.envs.tasks.published import as_jsonl, as_parquet, episode_of, score


def question(response: float, low: float = 1, high: float = 7, kind: Any = "ordinal") -> Response:
    return Response(text="?", kind=kind, response=response, low=low, high=high, study="s", group="s / 1 / 1")


def rows_of(path: Path) -> tuple[TaskSpec, list[Row]]:
    spec = with_data(registry.get("socsci210"), path)
    return spec, sorted(spec.rows("test", None, 0), key=lambda row: row.id)


def test_published_rows_load_and_the_demand_for_a_bare_number_is_gone(tmp_path: Path) -> None:
    spec, rows = rows_of(as_parquet(tmp_path / "rows.parquet", EXAMPLES))
    assert [(r.data["kind"], r.data["response"]) for r in rows] == [("ordinal", 6), ("binary", 1), ("categorical", 3)]
    shown = [episode_of(spec, row, "").views["reader"][1].content for row in rows]
    assert not any("Only return" in text or "nothing else" in text for text in shown)
    assert "from 1 to 7" in shown[0] and "<answer>yes</answer>" in shown[1]
    assert all(row.cluster == "example study" for row in rows)


def test_always_answering_the_middle_earns_nothing_that_the_respondents_did_not_give() -> None:
    responses = range(1, 8)
    middle = {p: sum(worth(question(r), 4, p) for r in responses) / 7 for p in ("soul", "strict")}  # type: ignore[arg-type]
    assert middle["soul"] == pytest.approx(1 - 12 / 7 / 6)  # 0.714: what OdysSim's rule pays
    assert middle["strict"] == pytest.approx(1 / 7)  # only the respondent who answered 4
    assert all(worth(question(r), 4, "strict") == 0 for r in responses if r != 4)
    assert all(worth(question(r, high=4), m, "strict") == 0 for m in (2, 3) for r in (1, 4))


@given(st.integers(1, 9), st.integers(1, 9), st.integers(2, 9))
def test_strict_worth_is_bounded_full_only_for_the_answer_itself_and_falls_with_distance(
    response: int, answer: int, high: int
) -> None:
    if max(response, answer) > high:
        return
    asked = question(response, 1, high)
    value = gain_over_middle(asked, answer)
    assert 0 <= value <= 1 and (value == 1) == (answer == response)
    farther = answer + (1 if answer >= response else -1)
    assert gain_over_middle(asked, farther) <= value


def test_answers_off_the_scale_or_without_one_number_are_format_errors(tmp_path: Path) -> None:
    spec, rows = rows_of(as_jsonl(tmp_path / "rows.jsonl", EXAMPLES))
    ordinal, binary, categorical = rows
    assert score(spec, ordinal, "<answer>6</answer>").value == 1.0
    assert score(spec, ordinal, "<answer>999</answer>", "soul").value == pytest.approx(1 - 1 / 6)
    for reply in ("<answer>999</answer>", "6", "", "<answer>5 or 6</answer>", "<answer>6</answer><answer>5</answer>"):
        outcome = score(spec, ordinal, reply)
        assert outcome.value == 0.0 and outcome.format_error
    assert score(spec, ordinal, "<answer>yes</answer>").format_error
    assert score(spec, binary, "<answer>Yes</answer>").value == score(spec, binary, "<answer>1</answer>").value == 1.0
    assert score(spec, categorical, "<answer>2</answer>").value == 0.0  # a neighbour is no nearer among categories


@pytest.mark.parametrize(("low", "high", "yes", "no"), [(0, 1, 1.0, 0.0), (1, 2, None, None), (-1, 1, None, None)])
def test_yes_and_no_count_on_a_scale_from_0_to_1_only(
    low: float, high: float, yes: float | None, no: float | None
) -> None:
    asked = question(high, low, high, "binary")
    read = [read_answer(asked, f"<answer>{word}</answer>", "strict") for word in ("Yes", "no")]
    assert read == [yes, no]
    assert read_answer(asked, f"<answer>{high}</answer>", "strict") == high
    assert read_answer(asked, "<answer>no</answer>", "soul") == 0.0  # OdysSim's rule, on any scale


def test_feedback_tells_the_side_and_not_the_answer(tmp_path: Path) -> None:
    spec, (row, *_) = rows_of(as_jsonl(tmp_path / "rows.jsonl", EXAMPLES))
    env = spec.env("strict")
    state = env.hear(env.start(row, None), "reader", "<answer>2</answer>")  # type: ignore[arg-type]
    feedback = env.feedback(state, "reader")
    assert feedback.sees_gold and "higher" in feedback.text and "6" not in feedback.text


def test_a_scale_that_does_not_hold_the_response_is_refused(tmp_path: Path) -> None:
    bad = {"prompt_text": "?", "response": 9, "r_min": 1, "r_max": 7}
    with pytest.raises(DataError, match="not on the scale 1 to 7"):
        rows_of(as_jsonl(tmp_path / "rows.jsonl", [bad]))


def test_an_unreadable_answer_is_told_as_none_and_a_failed_episode_not_at_all(tmp_path: Path) -> None:
    spec, (row, binary, _) = rows_of(as_jsonl(tmp_path / "rows.jsonl", EXAMPLES))
    category = survey_answer(episode_of(spec, binary, "<answer>no</answer>"))
    assert category is not None and (category.answer, category.human) == ("0", "1")
    read, unread = (survey_answer(episode_of(spec, row, text)) for text in ("<answer>5</answer>", "five or so"))
    assert read is not None and (read.answer, read.human) == (5.0, 6.0)
    assert unread is not None and unread.answer is None and unread.question == read.question
    failed = Episode(row, 0, says=(), views={}, traces={}, outcomes={"reader": Unscored(FailureReason.TIMEOUT)})
    assert survey_answer(failed) is None
