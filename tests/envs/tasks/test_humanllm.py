"""HumanLLM item selection: reciprocal rank of what was bought, and lists that are no ranking."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.errors import DataError
from envs import registry
from envs.check import check
from envs.registry import TaskSpec, with_data
from envs.tasks.humanllm.task import EXAMPLES, ITEMS
from envs.types import Row
from tests.envs.tasks.published import as_jsonl, as_parquet, episode_of, score


def loaded(path: Path) -> tuple[TaskSpec, list[Row]]:
    spec = with_data(registry.get("humanllm"), path)
    return spec, sorted(spec.rows("test", None, 0), key=lambda row: row.id)


def test_published_rows_load_and_candidates_are_shown_once(tmp_path: Path) -> None:
    spec, rows = loaded(as_parquet(tmp_path / "rows.parquet", EXAMPLES))
    assert [row.data["bought"] for row in rows] == [6, 19] and rows[0].cluster == rows[1].cluster
    assert check(spec) == []
    system, user = episode_of(spec, rows[0], "").views["reader"][:2]
    assert "\nHistory 2: Kitchen scale\nHistory 3" in system.content and "Candidate" not in system.content
    assert user.content.count(ITEMS[0]) == 1 and "\nT: Flour" in user.content


def test_the_score_is_one_over_the_rank(tmp_path: Path) -> None:
    spec, (row, _) = loaded(as_jsonl(tmp_path / "rows.jsonl", EXAMPLES))
    for rank, ranking in enumerate(("G,A,B,C,D", "A,G,B,C,D", "A,B,G,C,D", "A,B,C,G,D", "A,B,C,D,G"), start=1):
        for profile in spec.profiles:
            outcome = score(spec, row, f"<answer>{ranking}</answer>", profile)
            assert outcome.value == pytest.approx(1 / rank)
            assert outcome.parts == {"hit@5": 1.0, "top-1": float(rank == 1)}
    assert score(spec, row, "<answer>A,B,C,D,E</answer>").value == 0.0


def test_a_dumped_list_and_a_repeated_letter_earn_nothing(tmp_path: Path) -> None:
    spec, (row, _) = loaded(as_jsonl(tmp_path / "rows.jsonl", EXAMPLES))
    everything = ",".join("ABCDEFGHIJKLMNOPQRST")
    dumps = [
        "",
        "G,A,B,C,D",
        "<answer></answer>",
        "<answer>G</answer>",
        f"<answer>{everything}</answer>",
        "<answer>G,G,G,G,G</answer>",
        "<answer>G,A,B,C,D,</answer>",
        "<answer>G,A,B,C,Z</answer>",
        "<answer>GA,B,C,D,E</answer>",
        "<answer>G,A,B,C,D</answer><answer>A,B,C,D,E</answer>",
    ]
    for reply in dumps:
        outcome = score(spec, row, reply)
        assert outcome.value == 0.0 and outcome.format_error, reply


def test_spaces_and_case_are_free_under_strict_only(tmp_path: Path) -> None:
    spec, (row, _) = loaded(as_jsonl(tmp_path / "rows.jsonl", EXAMPLES))
    assert score(spec, row, "<answer> g, a, b, c, d </answer>").value == 1.0
    assert score(spec, row, "<answer> g, a, b, c, d </answer>", "soul").format_error


def test_feedback_never_names_what_was_bought(tmp_path: Path) -> None:
    spec, (row, _) = loaded(as_jsonl(tmp_path / "rows.jsonl", EXAMPLES))
    env = spec.env("strict")
    for reply in ("<answer>A,B,C,D,E</answer>", "<answer>A,B,C,D,G</answer>", "none"):
        state = env.hear(env.start(row, None), "reader", reply)  # type: ignore[arg-type]
        feedback = env.feedback(state, "reader")
        assert "Proofing basket" not in feedback.text
        assert feedback.sees_gold == (reply != "none") and ("G" not in feedback.text.replace(",", " ").split())


def test_rows_without_a_bought_candidate_are_refused(tmp_path: Path) -> None:
    for change in ({"answer_index": 20}, {"answer_index": None, "answer_letter": None}, {"candidates": ["one"]}):
        record = {"extra_info": {**EXAMPLES[0]["extra_info"], **change}}
        with pytest.raises(DataError, match="record 1"):
            loaded(as_jsonl(tmp_path / "rows.jsonl", [record]))
