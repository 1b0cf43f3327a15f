"""AlignX: five registrations of one task, no side that pays, and the authors' own measure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from common.errors import DataError
from envs import registry
from envs.registry import with_data
from envs.tasks.alignx.author import LogProbs, alignment_accuracy, prefers_chosen
from envs.types import Row
from tests.envs.tasks.published import as_jsonl, episode_of, score

PARTS = ("demo", "pair", "ugc", "arbitrary", "history16")


def record(number: int, **more: Any) -> dict[str, Any]:
    pairs = [{"prompt": f"p{i}", "chosen": f"liked {i}", "rejected": f"disliked {i}"} for i in range(16)]
    return {
        "data_source": "alignx",
        "prompt": [{"role": "user", "content": "the whole prompt of another program"}],
        "extra_info": {
            "index": 0,
            "raw_prompt": f"Post {number}",
            "chosen": f"kept {number}",
            "rejected": f"left {number}",
            "icl_pairs": pairs,
            **more,
        },
    }


def rows_of(tmp_path: Path, records: list[dict[str, Any]], name: str = "alignx_pair") -> list[Row]:
    path = as_jsonl(tmp_path / "rows.jsonl", records)
    return sorted(with_data(registry.get(name), path).rows("test", None, 0), key=lambda row: int(row.id))


def test_neither_letter_pays_even_when_every_row_has_the_same_index(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, [record(n) for n in range(200)])
    spec = registry.get("alignx_pair")
    share = sum(row.data["choices"].index(row.data["answer"]) == 0 for row in rows) / len(rows)
    assert 0.35 < share < 0.65
    for profile in spec.profiles:
        right = sum(score(spec, row, "<answer>A</answer>", profile).value for row in rows[:50])
        assert 10 < right < 40


def test_the_side_does_not_depend_on_which_reply_is_preferred(tmp_path: Path) -> None:
    one = record(1)
    two = record(1, chosen="left 1", rejected="kept 1")
    a, b = rows_of(tmp_path, [one, two])
    assert a.data["choices"] == b.data["choices"] and a.data["answer"] != b.data["answer"]


def test_as_many_earlier_preferences_are_shown_as_the_row_says(tmp_path: Path) -> None:
    few, many = rows_of(tmp_path, [record(1), record(2, n_icl=16)], "alignx_history16")
    spec = registry.get("alignx_history16")
    shown = [episode_of(spec, row, "").views["reader"][0].content for row in (few, many)]
    assert [text.count("You liked better") for text in shown] == [2, 16]


def test_a_description_goes_before_a_synthesized_profile(tmp_path: Path) -> None:
    both, only = rows_of(tmp_path, [record(1, demographic="D", profile="P"), record(2, demographic="", profile="P")])
    assert (both.data["about"], only.data["about"]) == ("D", "P")


def test_small_letters_are_unreadable_under_soul(tmp_path: Path) -> None:
    (row,) = rows_of(tmp_path, [record(1)])
    spec = registry.get("alignx_pair")
    letter = "AB"[row.data["choices"].index(row.data["answer"])]
    assert score(spec, row, f"<answer>{letter.lower()}</answer>", "soul").format_error
    assert score(spec, row, f"<answer>{letter.lower()}</answer>").value == 1.0


def test_records_without_a_preference_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="same text"):
        rows_of(tmp_path, [record(1, rejected="kept 1")])
    with pytest.raises(DataError, match="raw_prompt"):
        rows_of(tmp_path, [record(1, raw_prompt=None)])


@pytest.mark.parametrize("part", PARTS)
def test_the_five_parts_are_one_family_on_one_axis(part: str) -> None:
    spec = registry.get(f"alignx_{part}")
    assert (spec.axis, spec.metric.higher_is_better, spec.profiles) == ("EVAL", True, ("strict", "soul"))


def test_the_authors_measure_is_a_margin_over_the_reference_model() -> None:
    reference = LogProbs(chosen=-40.0, rejected=-10.0)
    assert prefers_chosen(LogProbs(-35.0, -9.0), reference)  # both rise; the chosen one by more
    assert not prefers_chosen(LogProbs(-39.0, -5.0), reference)
    assert not prefers_chosen(reference, reference)
    assert alignment_accuracy([(LogProbs(-35.0, -9.0), reference), (reference, reference)]) == 0.5
    with pytest.raises(ValueError, match="no rows"):
        alignment_accuracy([])
