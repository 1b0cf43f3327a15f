"""The local spawner with real child processes: exit codes, logs, stop requests, nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest

from common.errors import ExitCode, Interrupted
from launch.local import RankCrashed, RankFailed, run_local

WORKER = """
import argparse, os, pathlib, signal, sys, time
from common.errors import DataError, GateError, run_main

p = argparse.ArgumentParser()
p.add_argument("run_dir", type=pathlib.Path)
p.add_argument("--rank", type=int)
p.add_argument("--world-size", type=int)
p.add_argument("--rendezvous")
p.add_argument("--behave", default="finish")
a = p.parse_args()

def stubborn_child():
    import subprocess
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", str(a.run_dir)])

def main():
    print("hello from", a.rank, flush=True)
    if a.behave == "data_error" and a.rank == 1:
        raise DataError("block 3 is corrupt", where="x.bin", fix="prepare it again")
    if a.behave == "crash" and a.rank == 1:
        raise ZeroDivisionError("planted")
    if a.behave == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        stubborn_child()
        (a.run_dir / f"ready{a.rank}").touch()
        time.sleep(60)
    if a.behave in ("data_error", "crash", "serve"):
        stop = []
        signal.signal(signal.SIGTERM, lambda *_: stop.append(1))
        (a.run_dir / f"ready{a.rank}").touch()
        for _ in range(600):
            if stop:
                sys.exit(4)
            time.sleep(0.1)

run_main(main)
"""


@pytest.fixture
def worker(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "osim_test_worker.py").write_text(WORKER)
    return {"PYTHONPATH": str(tmp_path)}


def run(run_dir: Path, worker: dict[str, str], behave: str, **options: object) -> None:
    run_local("osim_test_worker", run_dir, 2, arguments=["--behave", behave], environment=worker, **options)  # type: ignore[arg-type]


def processes_of(run_dir: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if str(run_dir) in (process.info["cmdline"] or []):
            found.append(process)
    return found


def test_finished_ranks_leave_their_logs_and_a_second_run_appends(tmp_path: Path, worker: dict[str, str]) -> None:
    run(tmp_path / "run", worker, "finish")
    run(tmp_path / "run", worker, "finish")
    for rank in (0, 1):
        assert (tmp_path / f"run/logs/rank{rank}.log").read_text() == f"hello from {rank}\n" * 2


def test_error_of_one_rank_reaches_the_user_with_its_exit_code_and_the_others_end(
    tmp_path: Path, worker: dict[str, str]
) -> None:
    started = time.monotonic()
    with pytest.raises(RankFailed) as caught:
        run(tmp_path / "run", worker, "data_error")
    assert str(caught.value) == "x.bin: block 3 is corrupt\n  fix: prepare it again"
    assert caught.value.exit_code == ExitCode.USAGE
    assert not processes_of(tmp_path / "run")
    assert time.monotonic() - started < 20


def test_crash_of_one_rank_shows_its_last_log_lines(tmp_path: Path, worker: dict[str, str]) -> None:
    with pytest.raises(RankCrashed, match=r"rank 1 ended with exit code 1(.|\n)*ZeroDivisionError: planted"):
        run(tmp_path / "run", worker, "crash")
    assert not processes_of(tmp_path / "run")


def interrupt_when_ready(run_dir: Path, times: int = 1) -> object:
    """An on_poll that behaves like a user at Ctrl-C once both ranks work."""
    sent: list[float] = []

    def on_poll() -> None:
        ready = (run_dir / "ready0").exists() and (run_dir / "ready1").exists()
        if ready and len(sent) < times:
            sent.append(time.monotonic())
            os.kill(os.getpid(), signal.SIGINT)

    return on_poll


def test_ctrl_c_asks_the_ranks_to_stop_and_reports_a_resumable_run(tmp_path: Path, worker: dict[str, str]) -> None:
    run_dir = tmp_path / "run"
    with pytest.raises(Interrupted, match="the last step is saved"):
        run(run_dir, worker, "serve", on_poll=interrupt_when_ready(run_dir))
    assert not processes_of(run_dir)


def test_ranks_deaf_to_the_stop_request_are_killed_with_their_children(
    tmp_path: Path, worker: dict[str, str]
) -> None:
    run_dir = tmp_path / "run"
    with pytest.raises(Interrupted, match="killed before it could save"):
        run(run_dir, worker, "deaf", on_poll=interrupt_when_ready(run_dir), stop_grace_s=0.5)
    assert not processes_of(run_dir)


def test_ranks_do_not_outlive_a_killed_command(tmp_path: Path, worker: dict[str, str]) -> None:
    run_dir = tmp_path / "run"
    code = textwrap.dedent(f"""
        from pathlib import Path
        from launch.local import run_local
        run_local("osim_test_worker", Path({str(run_dir)!r}), 2, arguments=["--behave", "serve"])
    """)
    command = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, **worker})
    wait_for(lambda: (run_dir / "ready0").exists() and (run_dir / "ready1").exists())
    command.kill()
    command.wait()
    wait_for(lambda: not processes_of(run_dir))


def wait_for(condition: object, timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.05)
