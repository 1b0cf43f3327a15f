"""RUN/launch/history: what the attempts of a run's jobs wrote of themselves, one line an event.

`<seconds since the epoch> <job id> <attempt> <words>`; written by the job script (job.sh.jinja) and by local runs.
It outlives Slurm's memory of a job and needs no accounting.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from launch.submit.shell import Shell


@dataclass(frozen=True)
class Event:
    """One line."""

    time: float
    job_id: str
    attempt: int
    words: str

    @property
    def ended_with(self) -> int | None:
        """The exit code of a last attempt; None for any other event."""
        parts = self.words.rstrip(":").split()
        if parts[0] != "ended":
            return None
        code = parts[1].rstrip(":")
        return int(code) if code.isdigit() else None


def path_of(run: Path) -> Path:
    """The file of a run folder."""
    return run / "launch" / "history"


def read_history(shell: Shell, run: Path, job_id: str) -> list[Event]:
    """Events of one job, oldest first. Tasks of its array have ids of their own and are not in it."""
    events = []
    for line in (shell.read(path_of(run)) or "").splitlines():
        parts = line.split(" ", 3)
        if len(parts) == 4 and parts[1] == job_id and parts[2].isdigit():
            events.append(Event(float(parts[0]), parts[1], int(parts[2]), parts[3]))
    return events


def append_event(run: Path, job_id: str, words: str) -> None:
    """For runs without a job script."""
    with path_of(run).open("a") as f:
        f.write(f"{int(time.time())} {job_id} 0 {words}\n")
