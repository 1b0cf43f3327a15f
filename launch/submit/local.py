"""The executor without Slurm: the same jobs, one after the other, on this machine and in this process.

Each job is its own `osim` verb in a child process, whose output is the user's; the preflight comes first. The first
job that fails ends the chain with its exit code. Ctrl-C and `osim launch cancel` reach the child, which saves and
ends with 4; the same command goes on.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from common.config import dump_yaml
from common.errors import ExitCode
from launch.allocation.config import AllocationConfig, write_allocation
from launch.submit.history import append_event
from launch.submit.jobs import ARRAY_TASK, LAUNCH, RECIPE, Job
from launch.submit.record import Record, SubmittedJob, submitted_now, write_record
from launch.submit.slurm import JobState

if TYPE_CHECKING:
    from launch.submit.config import PreflightConfig
    from launch.submit.submit import Planned


def run(planned: Sequence[Planned], out: Path, preflight: PreflightConfig, say: Callable[[str], None]) -> int:
    """Run all jobs; the exit code of the first that failed, else 0."""
    own = str(os.getpid())
    jobs = tuple(
        SubmittedJob(
            name=one.job.name,
            kind=one.job.kind,
            run_dir=one.job.run_dir,
            job_id=own,
            backend="local",
            submitted=submitted_now(),
        )
        for one in planned
    )
    for one in planned:
        _write(one, preflight)
    write_record(out, Record(jobs=jobs))
    with _forwarded_signals() as children:
        for one in planned:
            say(f"{one.job.name}: {one.job.kind} in {one.job.run_dir}")
            append_event(one.job.run_dir, own, "started")
            code = _run_one(one.job, has_recipe=one.recipe is not None, children=children)
            append_event(one.job.run_dir, own, f"ended {code}")
            if code:
                return code
    return int(ExitCode.DONE)


def _write(one: Planned, preflight: PreflightConfig) -> None:
    folder = one.job.run_dir / LAUNCH
    (one.job.run_dir / "logs").mkdir(parents=True, exist_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    if one.recipe is not None:
        (folder / RECIPE).write_text(dump_yaml(one.recipe))
        write_allocation(one.job.run_dir, AllocationConfig(kind=one.job.kind, gpus_per_node=0, preflight=preflight))


def _run_one(job: Job, *, has_recipe: bool, children: list[subprocess.Popen[bytes]]) -> int:
    commands = [["launch.allocation.preflight", str(job.run_dir), str(job.run_dir / LAUNCH)]] if has_recipe else []
    commands += [["launch", *arguments] for arguments in verbs(job)]
    for command in commands:
        child = subprocess.Popen([sys.executable, "-m", *command])
        children.append(child)
        code = child.wait()
        children.remove(child)
        if code:
            return code if code > 0 else 128 - code
    return 0


def verbs(job: Job) -> list[list[str]]:
    """The `osim` command lines that do the job here."""
    (main,) = (s for s in job.steps if s.role == "main")
    if main.module == "launch":
        tasks = range(job.array) if job.array else (0,)
        return [[a.replace(ARRAY_TASK, str(task)) for a in main.arguments] for task in tasks]
    ranks = str(main.nodes * main.per_node)
    recipe = str(job.run_dir / LAUNCH / RECIPE)
    return [[job.kind, "--recipe", recipe, "--out", str(job.run_dir), "--ranks", ranks]]


class _forwarded_signals(contextlib.AbstractContextManager[list[subprocess.Popen[bytes]]]):
    """SIGINT and SIGTERM go to the child alone: it saves and ends, and its exit code is ours."""

    def __enter__(self) -> list[subprocess.Popen[bytes]]:
        self.children: list[subprocess.Popen[bytes]] = []
        self._old = {s: signal.signal(s, self._forward) for s in (signal.SIGINT, signal.SIGTERM)}
        return self.children

    def __exit__(self, *_: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)

    def _forward(self, number: int, _frame: object) -> None:
        for child in self.children:
            if number != signal.SIGINT:  # the terminal has sent Ctrl-C to the whole group
                child.send_signal(number)


def state_of(job: SubmittedJob) -> JobState:
    """Whether the process that launched it lives; what it ended with is in the history."""
    from launch.submit.history import read_history
    from launch.submit.shell import LocalShell

    events = read_history(LocalShell(), job.run_dir, job.job_id)
    if events and (code := events[-1].ended_with) is not None:
        return JobState("COMPLETED" if code == 0 else "FAILED", code)
    if not _lives(int(job.job_id)):
        return JobState("CANCELLED")
    return JobState("RUNNING", nodes="this machine") if events else JobState("PENDING", reason="Dependency")


def stop(job: SubmittedJob) -> None:
    """Ask the process that launched it to save and end."""
    if _lives(int(job.job_id)):
        os.kill(int(job.job_id), signal.SIGTERM)


def _lives(pid: int) -> bool:
    """A process of this number that is an osim launch."""
    import psutil

    try:
        return "launch" in psutil.Process(pid).cmdline()
    except psutil.Error:
        return False
