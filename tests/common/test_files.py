"""Files are whole or absent."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from pathlib import Path

import pytest

from common import files
from common.errors import DataError, ExitCode, UsageError, run_main


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


def test_a_sealed_object_comes_back_and_a_changed_one_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    files.write_sealed_json(path, {"b": 1.5, "c": (1, 2)})
    assert files.read_sealed_json(path) == {"b": 1.5, "c": [1, 2]}
    path.write_text(path.read_text().replace("1.5", "1.4"))
    with pytest.raises(DataError, match="not what was written"):
        files.read_sealed_json(path)


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": 1}\n{"a\x00\n{"a": 3}\n{"unfinished')
    with pytest.raises(DataError, match="line 2"):
        list(files.read_jsonl(path))


def test_an_output_has_one_writer_at_a_time(tmp_path: Path) -> None:
    with files.exclusive(tmp_path / ".lock", where=tmp_path):
        with (
            pytest.raises(UsageError, match=f"process {os.getpid()}"),
            files.exclusive(tmp_path / ".lock", where=tmp_path),
        ):
            pass
    with files.exclusive(tmp_path / ".lock", where=tmp_path):
        pass


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.ENAMETOOLONG])
def test_a_full_disk_is_one_clear_error_and_no_traceback(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> None:
        raise OSError(number, os.strerror(number), "/some/folder/metrics.jsonl")

    with pytest.raises(SystemExit) as ended:
        run_main(main)
    told = capsys.readouterr().err
    assert ended.value.code == ExitCode.USAGE
    assert told.startswith("error: /some/folder/metrics.jsonl: ") and "fix: " in told and "Traceback" not in told


def test_any_other_system_error_is_a_bug_and_keeps_its_traceback() -> None:
    def main() -> None:
        raise FileNotFoundError(errno.ENOENT, "no such file", "x")

    with pytest.raises(FileNotFoundError):
        run_main(main)


def test_a_lock_whose_owner_removes_its_folder_meanwhile_is_taken_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, real, calls = tmp_path / "work", fcntl.flock, []

    def flock(file: object, how: int) -> None:
        calls.append(how)
        if len(calls) == 1:
            shutil.rmtree(folder)
        real(file, how)  # type: ignore[arg-type]

    monkeypatch.setattr(fcntl, "flock", flock)
    with files.exclusive(folder / ".lock", where=folder):
        assert (folder / ".lock").read_text() == str(os.getpid()) and len(calls) == 2
