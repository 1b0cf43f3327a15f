"""Slurm's commands and what they say of a job, on any Shell.

`scontrol` knows jobs that wait, run or ended a short while ago, with the reason of waiting; `sacct` knows the older
ones where there is accounting. A job of several parts (array, heterogeneous) is as good as its worst part.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from common.errors import ExitCode, UsageError
from launch.submit.shell import Shell, ShellError

WAITING = frozenset({"PENDING", "REQUEUED", "REQUEUE_HOLD", "SUSPENDED", "SPECIAL_EXIT"})
ALIVE = WAITING | {"RUNNING", "CONFIGURING", "COMPLETING", "RESIZING", "SIGNALING", "STAGE_OUT", "STOPPED"}
RESUMABLE = frozenset({"CANCELLED", "TIMEOUT", "PREEMPTED", "NODE_FAIL", "BOOT_FAIL", "DEADLINE", "REVOKED"})
"""Ends that say nothing against the run: the same command goes on."""
MAX_DIGITS = 19
FIELD_NAME = re.compile(r"[\w:/]+")
REASONS = {
    "Resources": "no free nodes yet",
    "Priority": "other jobs go first",
    "Dependency": "waits for an earlier job",
    "DependencyNeverSatisfied": "an earlier job failed: this one never starts; osim launch cancel, then launch again",
    "BeginTime": "held for a moment after a requeue",
    "PartitionTimeLimit": "its time exceeds the partition's limit: lower slurm.time",
    "PartitionNodeLimit": "it asks for more nodes than the partition has: use fewer nodes",
    "ReqNodeNotAvail": "nodes it needs are down, drained or reserved: see sinfo -R",
    "QOSMaxJobsPerUserLimit": "your limit of running jobs under this qos is reached",
    "AssocGrpCpuLimit": "the account's share of CPUs is in use",
    "AssocGrpGRES": "the account's share of GPUs is in use",
    "AssocMaxJobsLimit": "the account's limit of jobs is reached",
    "JobHeldUser": "held by its owner: scontrol release",
    "JobHeldAdmin": "held by an administrator: ask why",
    "JobArrayTaskLimit": "the array's limit of running tasks is reached",
    "launch_failed_requeued_held": "a node failed to start it: scontrol release, and report the node",
}


@dataclass(frozen=True)
class JobState:
    """What Slurm says of one job now."""

    state: str
    exit_code: int = 0
    signal: int = 0
    reason: str = ""
    nodes: str = ""
    restarts: int = 0
    start: str = ""
    """When it started, or is expected to."""

    @property
    def alive(self) -> bool:
        return self.state in ALIVE

    @property
    def outcome(self) -> int:
        """Exit code for the one who waited: the job's own, 4 for an end that can be resumed, 1 for the rest."""
        if self.state == "COMPLETED":
            return int(ExitCode.DONE)
        if self.state in RESUMABLE:
            return int(ExitCode.INTERRUPTED)
        return self.exit_code or 1

    def describe(self) -> str:
        """One line for a person."""
        if self.state == "PENDING":
            why = REASONS.get(self.reason)
            text = f"PENDING ({self.reason or 'no reason given'}{': ' + why if why else ''})"
            return text + (f", start expected {self.start}" if self.start else "")
        if self.alive:
            again = f", attempt {self.restarts + 1}" if self.restarts else ""
            return f"{self.state} on {self.nodes or 'unknown nodes'}{again}"
        ended = f", killed by signal {self.signal}" if self.signal else f", exit code {self.exit_code}"
        return self.state + ("" if self.state == "COMPLETED" else ended)


UNKNOWN = JobState("UNKNOWN")


def sbatch_command(script: Path, after: Sequence[str]) -> list[str]:
    """How a script is submitted. A job whose predecessor failed is removed instead of waiting for ever."""
    wait = [f"--dependency=afterok:{':'.join(after)}", "--kill-on-invalid-dep=yes"] if after else []
    return ["sbatch", "--parsable", *wait, str(script)]


def submit(shell: Shell, script: Path, after: Sequence[str]) -> str:
    """The new job's id. Raises UsageError with Slurm's own words."""
    try:
        answer = shell.run(sbatch_command(script, after))
    except ShellError as e:
        fix = e.fix or "correct the cluster file (slurm:); `sbatch --test-only SCRIPT` tries again without submitting"
        raise UsageError(f"sbatch refused it: {e.what}", where=str(script), fix=fix) from None
    job_id = (answer.split() or [""])[-1].partition(";")[0]
    if not job_id.isdecimal():
        raise UsageError(f"sbatch gave no job id: {answer:.200}", where=str(script), fix="see squeue --me")
    return job_id


def cancel(shell: Shell, job_ids: Sequence[str]) -> None:
    """End jobs now, waiting or running."""
    if job_ids:
        shell.run(["scancel", *job_ids])


def ask_to_save(shell: Shell, job_ids: Sequence[str]) -> None:
    """Have running jobs save and end without being requeued (USR2 to the job script)."""
    if job_ids:
        shell.run(["scancel", "--batch", "--signal=USR2", *job_ids])


def states(shell: Shell, job_ids: Sequence[str]) -> dict[str, JobState]:
    """By job id; UNKNOWN for what Slurm has forgotten and no accounting remembers."""
    return {job_id: _known(shell, job_id) or _accounted(shell, job_id) or UNKNOWN for job_id in job_ids}


def _known(shell: Shell, job_id: str) -> JobState | None:
    try:
        lines = shell.run(["scontrol", "--oneliner", "show", "job", job_id]).splitlines()
    except ShellError as e:
        if "Invalid job id" in e.what:
            return None
        raise
    return parse_scontrol(lines)


def parse_scontrol(lines: Sequence[str]) -> JobState | None:
    """The worst of all parts of a job in `scontrol --oneliner show job`."""
    parts = []
    for line in lines:
        fields = _fields(line)
        if "JobState" not in fields:
            continue
        code, _, number = fields.get("ExitCode", "0:0").partition(":")
        start = fields.get("StartTime", "")
        reason = fields.get("Reason", "")
        parts.append(
            JobState(
                state=fields["JobState"],
                exit_code=_number(code),
                signal=_number(number),
                reason="" if reason == "None" else reason,
                nodes="" if (nodes := fields.get("NodeList", "")) == "(null)" else nodes,
                restarts=_number(fields.get("Restarts", "")),
                start="" if start == "Unknown" else start,
            )
        )
    return _worst(parts)


def _fields(line: str) -> dict[str, str]:
    """NAME=VALUE pairs apart by blanks; a value may hold blanks."""
    values: dict[str, list[str]] = {}
    value: list[str] = []
    for word in line.split(" "):
        name, equals, rest = word.partition("=")
        if equals and FIELD_NAME.fullmatch(name):
            value = values[name] = [rest]
        else:
            value.append(word)
    return {name: " ".join(words) for name, words in values.items()}


def _accounted(shell: Shell, job_id: str) -> JobState | None:
    asked = ("State", "ExitCode", "NodeList", "Start")
    try:
        lines = shell.run(["sacct", "-X", "-n", "-P", "-j", job_id, "-o", ",".join(asked)]).splitlines()
    except ShellError:  # no accounting here
        return None
    parts = []
    for line in lines:
        if len(columns := line.split("|")) == len(asked):
            state, code, nodes, start = columns
            number, _, signal = code.partition(":")
            name = state.partition(" ")[0]
            parts.append(JobState(name, _number(number), _number(signal), nodes=nodes, start=start))
    return _worst(parts)


def _number(text: str) -> int:
    """A count that Slurm printed; 0 for anything else."""
    return int(text) if text.isdecimal() and len(text) < MAX_DIGITS else 0


def _worst(parts: Sequence[JobState]) -> JobState | None:
    """A running part before a waiting one, then failures, then success; nodes of all parts."""
    if not parts:
        return None

    def rank(part: JobState) -> int:
        if part.alive:
            return 1 if part.state in WAITING else 0
        return 3 if part.state == "COMPLETED" else 2

    nodes = ",".join(dict.fromkeys(p.nodes for p in parts if p.nodes))
    return replace(min(parts, key=rank), nodes=nodes)
