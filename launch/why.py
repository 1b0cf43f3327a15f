"""What a running or stuck run is waiting for: read from outside, from files and processes, changing nothing.

Runs in the process of the command, on the machine of the run. Sources: the lock (who owns the folder), the age of the
last metric beside the usual time between metrics, the CPU use and state of every process of this machine whose
command line names the folder, and the last line of each log. Of a launched run also: what Slurm says of its jobs, the
reason for which they wait, and which rollout servers are silent (`launch.submit.follow`, the coordinator's
health.json). A run that cannot be read (another user's processes, a Slurm that does not answer) yields less, never an
error.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median

from common.errors import DataError, OsimError, UsageError, data_errors
from common.files import RESTORE, read_json_object
from common.run_folder import RunFolder

SAMPLE_S = 1.0
BUSY_PERCENT = 20.0
"""CPU use above which a process is computing rather than waiting."""
LATE_FACTOR = 5.0
"""No metric for this many times the usual interval is worth a word."""
MIN_LATE_S = 60.0


@dataclass(frozen=True)
class ProcessState:
    """One process of the run. cpu_percent is of one core, over `SAMPLE_S`."""

    pid: int
    what: str
    status: str
    cpu_percent: float
    memory_gib: float

    @property
    def busy(self) -> bool:
        """It computes, or would if the machine had a core left for it."""
        return self.cpu_percent >= BUSY_PERCENT or self.status == "running"


@dataclass(frozen=True)
class LastMetric:
    """The newest metric line of a run and the usual time between lines of its phase."""

    phase: str
    step: int
    age_s: float
    usual_s: float | None

    @property
    def late(self) -> bool:
        return self.usual_s is not None and self.age_s > max(MIN_LATE_S, LATE_FACTOR * self.usual_s)


@dataclass(frozen=True)
class LaunchedJob:
    """One job of `osim launch` and the sentence that says how it is."""

    line: str
    alive: bool
    waits: bool


@dataclass(frozen=True)
class Report:
    """What is known of one run folder."""

    folder: Path
    owner: int | None
    last: LastMetric | None
    processes: tuple[ProcessState, ...]
    log_ends: tuple[tuple[str, str], ...]
    finished: bool
    jobs: tuple[LaunchedJob, ...] = ()
    silent_servers: tuple[str, ...] = ()

    @property
    def verdict(self) -> str:
        """One sentence: what to make of it."""
        alive = [job for job in self.jobs if job.alive]
        if alive and all(job.waits for job in alive):
            return f"waits for Slurm: {alive[0].line}"
        if alive and self.last is None:
            return f"starting on the cluster: no metric yet; {alive[0].line}"
        if self.jobs and not alive and not self.finished:
            ended = next((job for job in self.jobs if "COMPLETED" not in job.line), self.jobs[-1])
            return f"no job of it is alive: {ended.line}"
        if self.owner is None and not alive:
            if self.finished:
                return "the run is complete; nothing waits"
            return "nobody runs this folder; run its command again and it resumes"
        if self.last is None:
            busy = [p.what for p in self.processes if p.busy]
            return f"starting: no metric yet; computing now: {', '.join(busy) or 'nobody'}"
        at = f"{self.last.phase} step {self.last.step}, {self.last.age_s:.0f} s ago"
        if not self.last.late:
            return f"working: {at}"
        silent = f"; silent rollout servers: {', '.join(self.silent_servers)}" if self.silent_servers else ""
        return f"late: {at} (usually every {self.last.usual_s:.1f} s); {_culprit(self.processes)}{silent}"


def _culprit(processes: tuple[ProcessState, ...]) -> str:
    busy = [p.what for p in processes if p.busy]
    idle = [p.what for p in processes if not p.busy]
    if not processes:
        return "its processes are on other machines: see the last log lines for whom they wait"
    if busy and idle:
        return f"{', '.join(idle)} wait for {', '.join(busy)}, which still compute"
    if busy:
        return "every process computes: a slow step, not a wait"
    return "no process computes: all wait, see the last log lines for whom"


def inspect(folder: Path) -> Report:
    """The state of a run; of the sub-run that last wrote a metric where the folder holds several."""
    jobs = _jobs(folder)
    if not jobs and not (folder / "config.yaml").exists():
        fix = "give the folder that --out named"
        raise UsageError("not a run folder: it has no config.yaml", where=str(folder), fix=fix)
    candidates = [folder, *sorted(p.parent for p in folder.glob("*/config.yaml"))]
    newest = max(candidates, key=lambda p: _mtime(p / "metrics.jsonl"))
    return Report(
        folder=newest,
        owner=RunFolder(folder).owner() or RunFolder(newest).owner(),
        last=_last_metric(RunFolder(newest)),
        processes=tuple(_processes(folder)),
        log_ends=tuple(_log_ends(newest / "logs")),
        finished=(newest / "report.html").exists() or (folder / "report.html").exists(),
        jobs=jobs,
        silent_servers=tuple(_silent_servers(newest)),
    )


def _jobs(folder: Path) -> tuple[LaunchedJob, ...]:
    """The jobs that `osim launch` submitted for this folder, as Slurm sees them now."""
    from launch.submit import follow
    from launch.submit.record import path_of, read_record
    from launch.submit.slurm import WAITING

    if not path_of(folder).is_file():
        return ()
    record = read_record(folder)
    try:
        found = follow.status(record)
    except OsimError as e:
        return tuple(LaunchedJob(f"{job.name}, job {job.job_id}: {e.what}", False, False) for job in record.jobs)
    return tuple(LaunchedJob(one.line(), one.alive, one.state.state in WAITING) for one in found)


def _silent_servers(folder: Path) -> Iterator[str]:
    """Rollout servers of the newest attempt that did not answer the coordinator's last probe."""
    attempts = sorted((folder / "launch").glob("attempt-*/health.json"), key=_mtime)
    if attempts:
        try:
            with data_errors(str(attempts[-1]), fix=RESTORE):
                silent = dict(read_json_object(attempts[-1])["silent_since"])
                told = [f"{url} for {time.time() - float(since):.0f} s" for url, since in silent.items()]
        except DataError:
            return
        yield from told


def _mtime(path: Path) -> float:
    return path.stat().st_mtime if path.exists() else 0.0


def _last_metric(run: RunFolder) -> LastMetric | None:
    try:
        with data_errors(str(run.metrics), fix=RESTORE):
            lines = [(str(m["phase"]), int(m["step"]), float(m["time"])) for m in run.read_metrics()]
    except DataError:
        return None
    if not lines:
        return None
    phase, step, at = max(lines, key=lambda line: line[2])
    times = sorted(written for of, _, written in lines if of == phase)
    gaps = [b - a for a, b in pairwise(times)]
    return LastMetric(phase, step, time.time() - at, median(gaps) if gaps else None)


def _processes(folder: Path) -> Iterator[ProcessState]:
    """Processes whose command line names the folder or what is in it, and their children."""
    import psutil

    own, found = folder.resolve(), dict[int, psutil.Process]()
    for process in psutil.process_iter(["cmdline", "cwd"]):
        line, start = process.info["cmdline"] or [], Path(process.info["cwd"] or "/")
        if process.pid != os.getpid() and any(_is_inside(start, argument, own) for argument in line):
            found[process.pid] = process
            try:
                found |= {child.pid: child for child in process.children(recursive=True)}
            except psutil.Error:
                continue
    before: dict[int, float] = {pid: cpu for pid, process in found.items() if (cpu := _cpu_s(process)) is not None}
    time.sleep(SAMPLE_S if found else 0)
    for pid, process in found.items():
        after = _cpu_s(process)
        if after is None or pid not in before:
            continue
        percent = 100 * (after - before[pid]) / SAMPLE_S
        try:
            with process.oneshot():
                memory = process.memory_info().rss / 2**30
                state = ProcessState(pid, _name(process.cmdline()), process.status(), percent, memory)
        except psutil.Error:  # it ended meanwhile
            continue
        yield state


def _is_inside(start: Path, argument: str, folder: Path) -> bool:
    """Whether an argument (`PATH` or `--option=PATH`) of a process in `start` names `folder` or something in it."""
    path = Path(argument.rpartition("=")[2])
    if start.is_relative_to(folder) and not path.is_absolute():
        return False  # every word would be inside: a shell that stands in the folder is not the run
    return Path(os.path.normpath(start / path)).is_relative_to(folder)


def _cpu_s(process: object) -> float | None:
    import psutil

    try:
        times = process.cpu_times()  # type: ignore[attr-defined]
    except psutil.Error:
        return None
    return float(times.user + times.system)


def _name(line: list[str]) -> str:
    """Short: the rank, or the module, or the program."""
    if "--rank" in line[:-1]:
        return f"rank {line[line.index('--rank') + 1]}"
    if "-m" in line[:-1]:
        return line[line.index("-m") + 1]
    return " ".join(Path(part).name for part in line[:3])


def _log_ends(logs: Path) -> Iterator[tuple[str, str]]:
    from launch.local import log_tail

    for log in sorted(logs.glob("*.log")):
        lines = [line for line in log_tail(log, lines=5).splitlines() if line.strip()]
        if lines:
            yield log.name, lines[-1]
