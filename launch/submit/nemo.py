"""Submission through NeMo-Run, for the jobs that it can express and whose true end it does not hide.

NeMo-Run lives in an environment of its own (`make nemo-run`; its pins contradict ours) and is never imported here:
one child process runs `nemo_run_client.py`, which imports nothing of osim. NeMo-Run renders and submits; status, exit
codes and logs are read from Slurm and the run folder as for every other job, because its client process exits 0
whatever the job did. What it cannot express, and why, is in docs/decisions.md.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import UsageError, data_errors
from launch.environments import version_in
from launch.submit.config import ROOT, SlurmConfig
from launch.submit.jobs import Job
from launch.submit.sbatch import mounts

CLIENT = Path(__file__).with_name("nemo_run_client.py")
TIMEOUT_S = 180.0


@dataclass(frozen=True)
class Choice:
    """Who submits a job, and why."""

    nemo_run: bool
    why: str

    @property
    def line(self) -> str:
        return f"{'NeMo-Run' if self.nemo_run else 'our own script'}: {self.why}"


def python() -> Path:
    """The interpreter that `make nemo-run` builds."""
    return ROOT / ".venv-nemo-run" / "bin" / "python"


def installed_version() -> str | None:
    """Of a finished environment."""
    return version_in(python().parent.parent, "nemo_run")


def obstacle(job: Job, slurm: SlurmConfig) -> str | None:
    """Why NeMo-Run cannot carry this job; None when it can."""
    if len(job.components) > 1:
        return "a heterogeneous job with a partition of its own for each part"
    if job.array is not None:
        return "NeMo-Run never finds the tasks of an array again"
    if not job.one_process:
        return "the warning before the time limit must reach the run, and NeMo-Run's script cannot take one"
    if slurm.host is not None:
        return "over SSH"
    if slurm.account is None:
        return "NeMo-Run needs an account"
    return None


def choose(job: Job, slurm: SlurmConfig) -> Choice:
    """Who submits this job. Raises UsageError where NeMo-Run is asked for and cannot."""
    why_not = obstacle(job, slurm)
    version = installed_version()
    if slurm.submit == "nemo-run":
        if why_not:
            raise UsageError(f"NeMo-Run cannot carry {job.name}: {why_not}", where="slurm.submit", fix="write auto")
        if version is None:
            raise UsageError("NeMo-Run's environment is not built", where=str(python()), fix="run: make nemo-run")
    if slurm.submit == "sbatch":
        return Choice(False, "as configured")
    if why_not:
        return Choice(False, why_not)
    return Choice(True, version) if version else Choice(False, "no NeMo-Run here; make nemo-run builds it")


def request(job: Job, slurm: SlurmConfig, script: Path, after: Sequence[str]) -> dict[str, Any]:
    """What the client is told. The script is ours, as for sbatch; NeMo-Run wraps it in a step of its own."""
    component = job.components[0]
    gpus = component.gpus_per_node or None
    more: dict[str, str] = dict(slurm.sbatch_flags)
    if after:
        more |= {"dependency": f"afterok:{':'.join(after)}", "kill-on-invalid-dep": "yes"}
    if slurm.reservation:
        more["reservation"] = slurm.reservation
    return {
        "home": str(job.run_dir / "launch" / "nemo-run"),
        "name": job.name,
        "script": str(script),
        "executor": {
            "account": slurm.account,
            "partition": component.partition,
            "qos": slurm.qos,
            "constraint": slurm.constraint if component.gpus_per_node else None,
            "time": job.time,
            "nodes": 1,
            "ntasks_per_node": 1,
            "cpus_per_task": slurm.cpus_per_rank,
            "gpus_per_node": gpus if slurm.gpu_flag == "gpus-per-node" else None,
            "gres": f"gpu:{gpus}" if gpus and slurm.gpu_flag == "gres" else None,
            "mem": slurm.mem,
            "container_image": slurm.container.image if slurm.container else None,
            "container_mounts": mounts(job, slurm) or None,
            "job_name_prefix": "osim.",
        },
        "additional_parameters": more,
    }


def submit(job: Job, slurm: SlurmConfig, script: Path, after: Sequence[str]) -> str:
    """The new job's id. Raises UsageError with NeMo-Run's own words."""
    return _ask("submit", request(job, slurm, script, after), "job_id")


def preview(job: Job, slurm: SlurmConfig, script: Path, after: Sequence[str]) -> str:
    """The sbatch text that NeMo-Run would submit; nothing is written or submitted."""
    return _ask("preview", request(job, slurm, script, after), "sbatch")


def _ask(what: str, message: dict[str, Any], answer: str) -> str:
    try:
        done = subprocess.run(
            [str(python()), str(CLIENT), what],
            input=json.dumps(message),
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise UsageError(f"NeMo-Run did not answer within {TIMEOUT_S:.0f} s", fix="slurm.submit: sbatch") from None
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        said = (done.stderr.strip() or done.stdout.strip())[-1500:]
        raise UsageError(f"NeMo-Run failed: {said}", where=message["name"], fix="slurm.submit: sbatch")
    with data_errors(message["name"], fix="slurm.submit: sbatch", what="NeMo-Run's answer"):
        return str(json.loads(lines[-1])[answer])
