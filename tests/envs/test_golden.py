"""Invariant 9: our author profiles give what the benchmarks' own code gave."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.errors import DataError, UsageError
from envs import golden
from envs.golden import Difference

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "data" / "golden"
FILES = sorted(FOLDER.glob("*.jsonl"))


@pytest.mark.skipif(not FILES, reason=f"no golden vectors: {FOLDER} is not here")
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_author_profiles_agree_with_the_benchmarks_own_code(path: Path) -> None:
    rows = golden.read(path)
    assert rows and golden.compare(rows) == []


def test_a_differing_row_is_listed_with_both_values(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(
        '{"kind": "mc", "response": "(a)", "correct_answer": 0, "author": true}\n'
        '{"kind": "mc", "response": "(b)", "correct_answer": 0, "author": true}\n'
    )
    assert golden.compare(golden.read(path)) == [Difference(2, "mc", True, False)]


def test_bad_rows_are_named_by_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"line 1.*unknown kind"):
        golden.compare([{"kind": "none"}])
    with pytest.raises(DataError, match="line 1"):
        golden.compare([{"kind": "mc", "response": "a"}])
    (tmp_path / "bad.jsonl").write_text("{")
    with pytest.raises(DataError, match="not JSON lines"):
        golden.read(tmp_path / "bad.jsonl")


def test_numbers_are_compared_with_a_tolerance_and_truth_values_are_not_numbers() -> None:
    assert golden.same([1.0, {"a": 0.1 + 0.2}], [1, {"a": 0.3}])
    assert not golden.same(True, 1) and not golden.same(0.3, 0.3001) and not golden.same([1], [1, 2])
