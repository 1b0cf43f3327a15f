"""Files are whole or absent."""

from __future__ import annotations

from pathlib import Path

import pytest

from common import files


def test_failed_directory_leaves_the_earlier_one_untouched_and_nothing_else(tmp_path: Path) -> None:
    final = tmp_path / "out"
    with files.atomic_directory(final) as folder:
        (folder / "a").write_text("1")
    with pytest.raises(RuntimeError), files.atomic_directory(final) as folder:
        (folder / "a").write_text("2")
        raise RuntimeError
    assert (final / "a").read_text() == "1"
    with files.atomic_directory(final) as folder:
        (folder / "b").write_text("3")
    assert [p.name for p in final.iterdir()] == ["b"]
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_directory_of_a_writer_killed_between_its_two_renames_is_put_back(tmp_path: Path) -> None:
    final = tmp_path / "out"
    (tmp_path / ".out.old").mkdir()
    (tmp_path / ".out.old" / "a").write_text("1")
    with pytest.raises(RuntimeError), files.atomic_directory(final):
        raise RuntimeError
    assert (final / "a").read_text() == "1"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_failed_write_keeps_the_earlier_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.json"
    files.write_json(path, {"a": 1})

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        files.write_json(path, {"a": 2})
    assert files.read_json(path) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


def test_unfinished_last_line_is_left_out_and_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    files.append_jsonl(path, {"n": 1})
    with path.open("ab") as f:
        f.write(b'{"n": 2')
    assert list(files.read_jsonl(path)) == [{"n": 1}]
    files.repair_jsonl_tail(path)
    files.append_jsonl(path, {"n": 3})
    assert [line["n"] for line in files.read_jsonl(path)] == [1, 3]
