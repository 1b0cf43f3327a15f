"""A run folder belongs to one configuration and one process at a time."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from common.config import Config, load
from common.errors import UsageError
from common.run_folder import RunFolder
from rl.config import RLConfig


class Recipe(Config):
    steps: int = 1


def test_folder_of_another_configuration_is_refused_and_left_as_it_was(tmp_path: Path) -> None:
    run = RunFolder.prepare(tmp_path / "run", Recipe())
    run.log_metrics(1, "train", {"loss": 2.0})
    with pytest.raises(UsageError, match="another configuration"):
        RunFolder.prepare(tmp_path / "run", Recipe(steps=2))
    assert RunFolder.prepare(tmp_path / "run", Recipe()).read_metrics("train")[0]["loss"] == 2.0
    assert run.config.read_text() == "steps: 1\n"


def test_a_run_may_go_on_under_other_bounds_but_not_under_another_learning_rate(tmp_path: Path) -> None:
    base = {"model": "m", "tasks": [{"task": "t"}], "steps": 1, "client": {"max_usd": 1.0}}
    RunFolder.prepare(tmp_path, RLConfig.model_validate(base))
    raised = {
        "client": {"max_usd": 2.0},
        "watch": {"max_hours": 3},
        "gates": {"max_failure_share": 0.5},
        "timeout_s": 9,
    }
    run = RunFolder.prepare(tmp_path, RLConfig.model_validate(base | raised))
    assert load(RLConfig, run.config) == RLConfig.model_validate(base | raised)
    for other in ({"optimizer": {"lr": 1e-3}}, {"client": None}, {"seed": 1}):
        with pytest.raises(UsageError, match="another configuration"):
            RunFolder.prepare(tmp_path, RLConfig.model_validate(base | other))


def test_second_process_is_refused_while_the_first_holds_the_folder_and_a_killed_one_frees_it(tmp_path: Path) -> None:
    code = (
        f"import time, pathlib; from common.run_folder import RunFolder\n"
        f"with RunFolder(pathlib.Path({str(tmp_path)!r})).lock(): print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with pytest.raises(UsageError, match=f"process {holder.pid}"), RunFolder(tmp_path).lock():
            pass
    finally:
        holder.kill()
        holder.communicate()
    with RunFolder(tmp_path).lock():
        pass


def test_who_asks_for_the_owner_does_not_keep_a_run_from_starting(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    with run.lock():
        assert run.owner() == os.getpid()
    assert run.owner() is None
    with (tmp_path / ".lock").open() as asking:
        fcntl.flock(asking, fcntl.LOCK_SH)
        released = threading.Timer(0.03, fcntl.flock, (asking, fcntl.LOCK_UN))
        released.start()
        with run.lock():
            assert run.owner() == os.getpid()
        released.join()


def test_only_the_owner_cuts_off_an_unfinished_metric_line(tmp_path: Path) -> None:
    run = RunFolder.prepare(tmp_path, Recipe())
    run.metrics.write_bytes(b'{"step": 1')
    RunFolder.prepare(tmp_path, Recipe())
    assert run.metrics.read_bytes() == b'{"step": 1'
    with run.lock():
        assert run.metrics.read_bytes() == b""


def test_a_step_logged_again_after_a_resume_counts_once_with_its_newer_values(tmp_path: Path) -> None:
    run = RunFolder.prepare(tmp_path, Recipe())
    for step, loss in ((1, 3.0), (2, 2.0), (2, 1.0)):
        run.log_metrics(step, "train", {"loss": loss})
    assert [(m["step"], m["loss"]) for m in run.read_metrics("train")] == [(1, 3.0), (2, 1.0)]
