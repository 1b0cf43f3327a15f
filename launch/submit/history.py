"""RUN/launch/history: what the attempts of a run's jobs wrote of themselves, one line an event.

`<seconds since the epoch> <job id> <attempt> <words>`; written by the job script (job.sh.jinja) and by local runs.
It outlives Slurm's memory of a job and needs no accounting.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from pathlib import Path

from launch.submit.shell import Shell

LINE = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,18})?) (\S+) ([0-9]{1,9}) (.+)")
EXIT_CODE = re.compile(r"[0-9]{1,3}")


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
        if len(parts) < 2 or parts[0] != "ended":
            return None
        code = parts[1].rstrip(":")
        return int(code) if EXIT_CODE.fullmatch(code) else None


def path_of(run: Path) -> Path:
    """The file of a run folder."""
    return run / "launch" / "history"


def read_history(shell: Shell, run: Path, job_id: str) -> list[Event]:
    """Events of one job, oldest first. Tasks of its array have ids of their own and are not in it."""
    events = []
    for line in (shell.read(path_of(run)) or "").splitlines():
        found = LINE.fullmatch(line)
        if found and found[2] == job_id:
            events.append(Event(float(found[1]), job_id, int(found[3]), found[4]))
    return events


def append_event(run: Path, job_id: str, words: str) -> None:
    """For runs without a job script."""
    with path_of(run).open("a") as f:
        f.write(f"{int(time.time())} {job_id} 0 {words}\n")
