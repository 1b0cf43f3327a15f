"""The executor without Slurm: the same jobs, one after the other, on this machine and in this process.

Each job is its own `osim` verb in a child process, whose output is the user's; the preflight comes first. The first
job that fails ends the chain with its exit code. Ctrl-C and `osim launch cancel` reach the child, which saves and
ends with 4; nothing is started after them, and the same command goes on. One launch at a time in a folder.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from common.config import dump_yaml
from common.errors import ExitCode
from common.run_folder import RunFolder
from launch.allocation.config import FOLDER, AllocationConfig, recipe_of, write_allocation
from launch.submit.follow import refuse_second
from launch.submit.history import append_event
from launch.submit.jobs import ARRAY_TASK, Job
from launch.submit.record import Record, SubmittedJob, write_record

if TYPE_CHECKING:
    from launch.submit.config import PreflightConfig
    from launch.submit.submit import Planned


def run(planned: Sequence[Planned], out: Path, preflight: PreflightConfig, say: Callable[[str], None]) -> int:
    """Run all jobs; the exit code of the first that failed or was stopped, else 0.

    Raises UsageError while another launch owns the folder.
    """
    own = str(os.getpid())
    with RunFolder(out / FOLDER).lock(), _Children() as children:
        refuse_second(out)
        for one in planned:
            _write(one, preflight)
        write_record(out, Record(jobs=tuple(_recorded(one.job, own) for one in planned)))
        for one in planned:
            say(f"{one.job.name}: {one.job.kind} in {one.job.run_dir}")
            append_event(one.job.run_dir, own, "started")
            code = _run_one(one.job, children, has_recipe=one.recipe is not None)
            append_event(one.job.run_dir, own, f"ended {code}")
            if code:
                return code
    return int(ExitCode.DONE)


def _recorded(job: Job, own: str) -> SubmittedJob:
    return SubmittedJob(name=job.name, kind=job.kind, run_dir=job.run_dir, job_id=own, backend="local")


def _write(one: Planned, preflight: PreflightConfig) -> None:
    for name in ("logs", FOLDER):
        (one.job.run_dir / name).mkdir(parents=True, exist_ok=True)
    if one.recipe is not None:
        recipe_of(one.job.run_dir).write_text(dump_yaml(one.recipe))
        write_allocation(one.job.run_dir, AllocationConfig(kind=one.job.kind, gpus_per_node=0, preflight=preflight))


def _run_one(job: Job, children: _Children, *, has_recipe: bool) -> int:
    commands = [["launch.allocation.preflight", str(job.run_dir), str(job.run_dir / FOLDER)]] if has_recipe else []
    commands += [["launch", *arguments] for arguments in verbs(job)]
    for command in commands:
        if code := children.run([sys.executable, "-m", *command]):
            return code
    return 0


def verbs(job: Job) -> list[list[str]]:
    """The `osim` command lines that do the job here."""
    (main,) = (s for s in job.steps if s.role == "main")
    if main.module == "launch":
        tasks = range(job.array) if job.array else (0,)
        return [[a.replace(ARRAY_TASK, str(task)) for a in main.arguments] for task in tasks]
    ranks = str(main.nodes * main.per_node)
    return [[job.kind, "--recipe", str(recipe_of(job.run_dir)), "--out", str(job.run_dir), "--ranks", ranks]]


class _Children:
    """One child at a time. While this is open, SIGINT and SIGTERM do not end us: they end the child and keep the next
    from starting. SIGTERM is passed on; Ctrl-C the terminal has sent to the whole group."""

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None
        self._stopped = False
        self._to_pass_on = 0

    def run(self, command: list[str]) -> int:
        """The exit code of a command; 4 when a stop was asked for before it began, or killed it."""
        if self._stopped:
            return int(ExitCode.INTERRUPTED)
        self._child = subprocess.Popen(command)
        self._pass_on()  # what came while it was being made
        code = self._child.wait()
        self._child = None
        if code < 0 and self._stopped:
            return int(ExitCode.INTERRUPTED)
        return code if code >= 0 else 128 - code

    def __enter__(self) -> Self:
        self._old = {s: signal.signal(s, self._note) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame: object) -> None:
        self._stopped = True
        self._to_pass_on += number == signal.SIGTERM
        self._pass_on()

    def _pass_on(self) -> None:
        while self._child is not None and self._to_pass_on:
            self._to_pass_on -= 1
            self._child.send_signal(signal.SIGTERM)
