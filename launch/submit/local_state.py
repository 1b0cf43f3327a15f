"""What became of a launch without Slurm: from its history, and from whether the process that launched it lives."""

from __future__ import annotations

import os
import signal

from launch.submit.history import read_history
from launch.submit.record import SubmittedJob
from launch.submit.shell import LocalShell
from launch.submit.slurm import JobState


def state_of(job: SubmittedJob) -> JobState:
    """Whether the process that launched it lives; what it ended with is in the history."""
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
    """A process of this number that is an osim launch; not this one, which may have got the number of a dead one."""
    import psutil

    if pid == os.getpid():
        return False
    try:
        return "launch" in psutil.Process(pid).cmdline()
    except (psutil.Error, OverflowError, ValueError):
        return False
