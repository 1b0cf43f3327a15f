"""Stages are done once; what is unfinished is resumed; changed inputs are made again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from launch.quickstart.pipeline import Pipeline, Stage


class Recorder:
    """Three stages a ← b ← c that note when they run."""

    def __init__(self, folder: Path, *, a: int = 1, c: int = 1, fail: str = "") -> None:
        self.ran: list[str] = []
        self.said: list[str] = []
        self.fail = fail
        stages = [
            Stage("a", "first", self.make(folder / "a"), inputs={"n": a}),
            Stage("b", "second", self.make(folder / "b"), after=("a",)),
            Stage("c", "third", self.make(folder / "c"), inputs=c, after=("b",)),
        ]
        self.pipeline = Pipeline(folder, stages, say=self.said.append)

    def make(self, folder: Path) -> Callable[[], dict[str, str]]:
        def run() -> dict[str, str]:
            self.ran.append(folder.name)
            with (folder / "work").open("a") as f:
                f.write("x")
            if folder.name == self.fail:
                raise KeyboardInterrupt
            return {"made": folder.name}

        return run


def test_second_run_repeats_nothing_and_says_so(tmp_path: Path) -> None:
    Recorder(tmp_path).pipeline.run()
    again = Recorder(tmp_path)
    done = again.pipeline.run()
    assert again.ran == []
    assert [d.repeated_nothing for d in done] == [True] * 3
    assert [d.summary for d in done] == [{"made": name} for name in "abc"]
    assert all("not repeated" in line for line in again.said)


def test_interrupted_stage_is_resumed_in_its_own_folder_and_finished_ones_are_not_repeated(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        Recorder(tmp_path, fail="b").pipeline.run()
    again = Recorder(tmp_path)
    again.pipeline.run()
    assert again.ran == ["b", "c"]
    assert (tmp_path / "b/work").read_text() == "xx"


def test_changed_inputs_repeat_the_stage_and_what_builds_on_it_from_empty_folders(tmp_path: Path) -> None:
    Recorder(tmp_path).pipeline.run()
    again = Recorder(tmp_path, c=2)
    again.pipeline.run()
    assert again.ran == ["c"]
    assert (tmp_path / "c/work").read_text() == "x"
    again = Recorder(tmp_path, a=2, c=2)
    again.pipeline.run()
    assert again.ran == ["a", "b", "c"]


def test_unfinished_stage_never_resumes_on_other_inputs(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        Recorder(tmp_path, fail="c").pipeline.run()
    again = Recorder(tmp_path, c=2)
    again.pipeline.run()
    assert again.ran == ["c"]
    assert (tmp_path / "c/work").read_text() == "x"


def test_deleted_output_is_made_again(tmp_path: Path) -> None:
    import shutil

    Recorder(tmp_path).pipeline.run()
    shutil.rmtree(tmp_path / "b")
    again = Recorder(tmp_path)
    again.pipeline.run()
    assert again.ran == ["b"]
