"""After the submission: the state of each job, the end of its logs, cancelling, waiting for the end.

Runs in the process of the command, from the run folder's record alone. A failed job is explained by the error text or
the last log lines of the process that failed first, never by a bare state.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from common.errors import ExitCode, OsimError, UsageError
from launch.local import last_error
from launch.submit import history, local_state, slurm
from launch.submit.history import Event
from launch.submit.jobs import SERVICES
from launch.submit.record import Record, SubmittedJob, path_of, read_record
from launch.submit.shell import Shell, ShellError
from launch.submit.slurm import UNKNOWN, JobState

LOG_BYTES = 1 << 16
TAIL_LINES = 20
POLL_S = 10.0
SILENCE_S = 600.0
"""How long the state of jobs that was known may stay unknown (a login node restarts) before waiting ends."""
ACCOUNTING_LAG_S = 30.0
"""How long a job that Slurm does not know (any more) may take to appear in the accounting."""
WORST_FIRST = tuple(str(int(code)) for code in (ExitCode.USAGE, ExitCode.GATE))


class JobFailed(OsimError):
    """A launched job ended badly. Carries the job's own exit code."""

    def __init__(self, what: str, *, code: int, where: str = "", fix: str = "") -> None:
        super().__init__(what, where=where, fix=fix)
        self.exit_code = code  # type: ignore[assignment]  # a crash has a code that is none of ours


@dataclass(frozen=True)
class Status:
    """One job of a record, now."""

    job: SubmittedJob
    state: JobState
    last: Event | None
    """What its script wrote last."""

    @property
    def alive(self) -> bool:
        return self.state.alive

    @property
    def outcome(self) -> int:
        """Exit code of an ended job."""
        if self.state is UNKNOWN and self.last and (code := self.last.ended_with) is not None:
            return code
        return self.state.outcome

    def line(self) -> str:
        """One line for a person."""
        told = f"; {self.last.words}" if self.last else ""
        return f"{self.job.name} ({self.job.kind}, job {self.job.job_id}): {self.state.describe()}{told}"


def status(record: Record) -> list[Status]:
    """All jobs of a record, in the order of their submission."""
    shell = record.shell
    on_slurm = [job.job_id for job in record.jobs if job.backend != "local"]
    states = slurm.states(shell, on_slurm)
    found = []
    for job in record.jobs:
        state = local_state.state_of(job) if job.backend == "local" else states[job.job_id]
        events = history.read_history(shell, job.run_dir, job.job_id)
        found.append(Status(job, state, events[-1] if events else None))
    return found


def refuse_second(out: Path) -> None:
    """Two launches of one run would fight for its folder. Raises UsageError while a job of the record lives."""
    if not path_of(out).exists():
        return
    if alive := [f"{one.job.job_id} is {one.state.state}" for one in status(read_record(out)) if one.alive]:
        fix = f"wait for it, or: osim launch cancel {out}"
        raise UsageError(f"it is launched already: job {', job '.join(alive)}", where=str(out), fix=fix)


def wait(
    record: Record, on_change: Callable[[Status], None], *, poll_s: float = POLL_S, silence_s: float = SILENCE_S
) -> None:
    """Until every job has ended. Raises JobFailed for the first that ended badly, with why.

    Once the states were known, failing questions are repeated for `silence_s`; then the ShellError is raised.
    """
    seen: dict[str, str] = {}
    unknown_since: dict[str, float] = {}
    known: float | None = None
    while True:
        now = time.monotonic()
        try:
            found = status(record)
        except ShellError:
            if known is None or now - known > silence_s:
                raise
            time.sleep(poll_s)
            continue
        known = now
        for one in found:
            if one.state.describe() != seen.get(one.job.job_id):
                seen[one.job.job_id] = one.state.describe()
                on_change(one)
            if one.state is UNKNOWN:
                unknown_since.setdefault(one.job.job_id, now)
        undecided = [
            one
            for one in found
            if one.alive or (one.state is UNKNOWN and now - unknown_since[one.job.job_id] < ACCOUNTING_LAG_S)
        ]
        if not undecided:
            break
        time.sleep(poll_s)
    for one in found:
        if one.outcome:
            raise JobFailed(
                f"{one.state.describe()}\n{explain(record.shell, one)}",
                code=one.outcome,
                where=f"{one.job.name}, job {one.job.job_id}",
                fix=_next_step(one),
            )


def _next_step(one: Status) -> str:
    if one.outcome == ExitCode.INTERRUPTED:
        return "the same osim launch goes on from the last checkpoint"
    return f"logs are in {one.job.run_dir / 'logs'}; correct the cause and launch again"


def explain(shell: Shell, one: Status) -> str:
    """The words of the process that failed: its OsimError, else its last log lines, else the job script's."""
    logs = one.job.run_dir / "logs"
    for note in _failures(shell, one):
        code, _, label = note.removeprefix("failed-").partition("-")
        text = shell.read(logs / f"{label}.log", last_bytes=LOG_BYTES)
        if text:
            own = last_error(text)
            return (
                f"{label}: {own}" if own else f"{label} ended with exit code {code}; its log ends with\n{tail(text)}"
            )
    for pattern in (f"{one.job.name}-{one.job.job_id}*.log", "*-step-*.log"):
        for log in reversed(shell.glob(logs, pattern)):
            if text := (shell.read(log, last_bytes=LOG_BYTES) or "").strip():
                return f"{log} ends with\n{tail(text)}"
    return f"no process of it has written anything below {logs}"


def _failures(shell: Shell, one: Status) -> list[str]:
    """Names of the newest attempt's failure notes: what we know the meaning of first, then in order of time; those of
    services, whose loss ends no run by itself, after all others."""
    attempts = shell.glob(one.job.run_dir / "launch", f"attempt-{one.job.job_id}-*")
    attempts = attempts or shell.glob(one.job.run_dir / "launch", "attempt-*")
    names = [p.name for p in shell.glob(attempts[-1], "failed-*")] if attempts else []

    def rank(name: str) -> tuple[bool, bool]:
        code, _, label = name.removeprefix("failed-").partition("-")
        return label.startswith(SERVICES), code not in WORST_FIRST

    return sorted(names, key=rank)


def tail(text: str, lines: int = TAIL_LINES) -> str:
    """The last lines."""
    return "\n".join(text.splitlines()[-lines:])


def cancel(record: Record, *, save: bool) -> list[str]:
    """End every living job: at once, or after a save where it runs. Returns one line a job."""
    shell, lines = record.shell, []
    now: list[str] = []
    later: list[str] = []
    for one in status(record):
        if not one.alive:
            lines.append(f"{one.job.name}: {one.state.describe()} already")
        elif one.job.backend == "local":
            local_state.stop(one.job)
            lines.append(f"{one.job.name}: asked to save and end")
        elif save and one.state.state not in slurm.WAITING:
            later.append(one.job.job_id)
            lines.append(f"{one.job.name}: job {one.job.job_id} saves and ends; osim launch again resumes it")
        else:
            now.append(one.job.job_id)
            lines.append(f"{one.job.name}: job {one.job.job_id} cancelled; what it saved is kept")
    slurm.ask_to_save(shell, later)
    slurm.cancel(shell, now)
    return lines


@dataclass(frozen=True)
class Log:
    """The end of one log file."""

    path: Path
    text: str


def log_files(record: Record) -> list[Path]:
    """Every log of every job, the one written last at the end."""
    shell = record.shell
    folders = list(dict.fromkeys(job.run_dir / "logs" for job in record.jobs))
    return [path for folder in folders for path in shell.glob(folder, "*.log")]


def read_logs(record: Record, name: str | None, lines: int) -> list[Log]:
    """The end of the named log, or of the one written last. Raises UsageError naming those that exist."""
    files = log_files(record)
    if not files:
        raise UsageError("no log yet", where=str(record.jobs[0].run_dir / "logs"), fix="osim launch status says why")
    chosen = files[-1:] if name is None else [p for p in files if p.name in (name, f"{name}.log")]
    if not chosen:
        raise UsageError(f"no log {name!r}", fix=f"one of: {', '.join(p.stem for p in files)}")
    found = []
    for path in chosen:
        text = record.shell.read(path, last_bytes=LOG_BYTES) or ""
        found.append(Log(path, tail(text, lines)))
    return found
