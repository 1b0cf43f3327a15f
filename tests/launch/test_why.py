"""`osim why` on runs in every state, with real processes."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.config import Config
from common.errors import UsageError
from common.files import append_jsonl
from common.run_folder import RunFolder
from launch import cli
from launch.why import inspect


class Recipe(Config):
    steps: int = 1


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder.prepare(tmp_path / "run", Recipe())


@pytest.fixture
def held(run: RunFolder) -> Iterator[RunFolder]:
    """The folder while one process owns it and computes, and another of the same run sleeps."""
    owner = """
import pathlib, sys
from common.run_folder import RunFolder
with RunFolder(pathlib.Path(sys.argv[1])).lock():
    print("held", flush=True)
    while True:
        pass
"""
    busy = subprocess.Popen(
        [sys.executable, "-c", owner, str(run.path), "--rank", "0"], stdout=subprocess.PIPE, text=True
    )
    idle = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", str(run.path), "--rank", "1"])
    try:
        assert busy.stdout is not None and busy.stdout.readline() == "held\n"
        yield run
    finally:
        for process in (busy, idle):
            process.kill()
            process.communicate()


def test_run_that_stands_still_says_that_nobody_runs_it(run: RunFolder) -> None:
    assert "nobody runs this folder" in inspect(run.path).verdict
    run.report.touch()
    assert "complete" in inspect(run.path).verdict


def test_late_run_names_who_computes_and_who_waits(held: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    for step, age_s in ((1, 304), (2, 302), (3, 300)):
        append_jsonl(held.metrics, {"phase": "train", "step": step, "time": time.time() - age_s})
    (held.logs / "rank1.log").write_text("entering all_reduce\n")
    with pytest.raises(SystemExit):
        cli.run(["why", str(held.path)])
    shown = capsys.readouterr().out
    told = r"late: train step 3, 3\d\d s ago \(usually every 2.0 s\); rank 1 wait for rank 0, which still compute"
    assert re.search(told, shown)
    assert "rank1.log: entering all_reduce" in shown


def test_run_at_its_usual_pace_is_working(held: RunFolder) -> None:
    held.log_metrics(1, "train", {})
    report = inspect(held.path)
    assert report.owner is not None
    assert report.verdict.startswith("working: train step 1")


def test_only_processes_of_the_folder_are_named_however_it_is_written(
    held: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    longer = RunFolder.prepare(held.path.with_name("ru"), Recipe())
    assert not inspect(longer.path).processes
    monkeypatch.chdir(held.path)
    assert sorted(p.what for p in inspect(Path()).processes) == ["rank 0", "rank 1"]


def test_folder_without_a_run_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a run folder"):
        inspect(tmp_path)
