"""BehaviorChain: the authors' book files, their letter rule, and measures of whole chains."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from envs import registry
from envs.check import check
from envs.registry import TaskSpec, with_data
from envs.tasks.behaviorchain.task import EXAMPLES, chain_measures
from envs.types import Episode, FailureReason, Outcome, Row, Score, Unscored
from tests.envs.tasks.published import as_jsonl, episode_of, score

OPTIONS = {"a": "waits", "b": "runs", "c": "sings", "d": "sleeps"}
QUESTION = "After this or in response to this, what behavior did Ada take?"
BOOK = {
    "title": "Invented",
    "profile": {"Name": "Ada", "Traits": "bold"},
    "max_index": 3,
    "chapters_len": 9,
    "summary_len": 8,
    "summary": [{"chapter_num": f"ch{i}", "chapter_content": f"Summary: part {i}"} for i in range(5)],
    "examples": [
        {"summary_refined": "opening"},
        {"summary_refined": f"First. {QUESTION}", "options_out_of_order": OPTIONS, "right_option_index": "b"},
        {"summary_refined": f"Second. {QUESTION}", "options_out_of_order": OPTIONS, "right_option_index": "d"},
    ],
}


def book(tmp_path: Path) -> tuple[TaskSpec, list[Row]]:
    spec = with_data(registry.get("behaviorchain"), as_jsonl(tmp_path / "book.json", [BOOK]))
    return spec, sorted(spec.rows("test", None, 0), key=lambda row: row.id)


def test_a_book_file_gives_one_row_per_step_and_no_question_of_the_authors(tmp_path: Path) -> None:
    spec, rows = book(tmp_path)
    assert [(r.data["step"], r.data["answer"]) for r in rows] == [(0, "runs"), (1, "sleeps")]
    assert len({r.cluster for r in rows}) == 1 and check(spec) == []
    system, user = episode_of(spec, rows[1], "").views["reader"][:2]
    assert "Traits: bold" in system.content
    assert "part 0" in system.content and "part 1" in system.content and "part 2" not in system.content
    assert user.content.startswith("Since then:\n1. First.\n\nNow:\nSecond.") and QUESTION not in user.content


def test_letters_follow_the_authors_last_bracket_under_author_only(tmp_path: Path) -> None:
    spec, (row, _) = book(tmp_path)
    for reply in ("b) because", "b", "not a) but b)", "<answer>B</answer>"):
        assert score(spec, row, reply, "author").value == 1.0
    for reply in ("B", "B)", "b) unlike a)"):
        assert score(spec, row, reply, "author").value == 0.0
    for reply in ("b) because", "b", "not a) but b)"):
        assert score(spec, row, reply).format_error


def test_a_letter_inside_a_thought_counts_under_soul_only(tmp_path: Path) -> None:
    spec, (row, _) = book(tmp_path)
    reply = "<think><answer>B</answer>?</think>I do not know."
    assert score(spec, row, reply, "soul").value == 1.0
    assert score(spec, row, reply).value == 0.0


def answered(character: str, step: int, outcome: Outcome) -> Episode:
    row = Row("behaviorchain", f"{character}{step}", character, {"step": step})
    return Episode(row, 0, says=(), views={}, traces={}, outcomes={"reader": outcome})


def test_chain_measures_follow_the_order_of_steps_and_leave_unscored_chains_out() -> None:
    failed = Unscored(FailureReason.ENGINE_FAILED)
    steps: dict[int, Any] = {0: 1.0, 1: 1.0, 2: 0.0, 3: 1.0, 4: 0.0}
    episodes = [answered("a", step, Score(value)) for step, value in reversed(steps.items())]
    episodes += [answered("b", 0, Score(1.0)), answered("c", 0, Score(1.0)), answered("c", 1, failed)]
    found = chain_measures(episodes)
    assert found["accuracy, mean over characters"] == pytest.approx((0.6 + 1) / 2)
    # The authors' value for 1, 1, 0, 1, 0 is 0.2667 (golden vectors), for a single right answer 1.
    assert found["cumulative accuracy (CAM), mean over characters"] == pytest.approx((4 / 15 + 1) / 2)
    assert found["longest chain, mean over characters"] == pytest.approx((0.4 + 1) / 2)
    assert chain_measures([answered("c", 0, failed)]) == {}


def test_epochs_are_chains_of_their_own_and_a_chain_with_a_gap_is_none() -> None:
    longest, twice = "longest chain, mean over characters", [Score(1.0), Score(0.0)]
    # In the plan's order: every step of a row, epoch by epoch. One play is right throughout, the other never.
    found = chain_measures([answered("a", step, outcome) for step in range(3) for outcome in twice])
    assert found[longest] == 0.5
    gap = [answered("b", step, Score(1.0)) for step in (0, 2)]
    assert chain_measures(gap) == {}


def test_published_chains_keep_their_behaviours() -> None:
    spec = registry.get("behaviorchain")
    assert spec.examples is not None and len(EXAMPLES) == 2
    first, second = spec.examples()
    assert first.cluster == second.cluster and (first.data["step"], second.data["step"]) == (0, 1)
    assert "You: He works through the night." in episode_of(spec, second, "").views["reader"][1].content
