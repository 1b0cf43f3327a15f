"""RUN/launch/record.json: what was submitted, enough for status, logs and cancel from another terminal.

A relaunch replaces it, after the jobs it names have ended. The stage folders of a chain each have their own.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Literal

from pydantic import Field

from common.config import Config, validate
from common.errors import UsageError
from common.files import read_json, write_json
from launch.submit.config import HOST, Kind
from launch.submit.shell import LocalShell, Shell, SshShell

Backend = Literal["sbatch", "nemo-run", "local"]


class SubmittedJob(Config):
    """One job of a record."""

    name: str = Field(pattern=r"^[\w.-]+$")
    kind: Kind
    run_dir: Path
    """On the machine that runs it."""
    job_id: str = Field(pattern=r"^[0-9]{1,18}$")
    """Slurm's, or the process id of a local run."""
    backend: Backend
    script: Path | None = None
    submitted: float = Field(default_factory=time.time)
    """Seconds since the epoch."""


class Record(Config):
    """All jobs of one `osim launch`."""

    host: str | None = Field(default=None, pattern=HOST)
    ssh_config: Path | None = None
    login_setup: tuple[str, ...] = ()
    jobs: tuple[SubmittedJob, ...] = ()

    @property
    def shell(self) -> Shell:
        """Where its commands are run and its files are."""
        return SshShell(self.host, self.login_setup, self.ssh_config) if self.host else LocalShell()


def path_of(folder: Path) -> Path:
    """The record of a run folder."""
    return folder / "launch" / "record.json"


def read_record(folder: Path) -> Record:
    """Raises UsageError when nothing was launched into this folder."""
    path = path_of(folder)
    if not path.is_file():
        raise UsageError("nothing was launched here", where=str(folder), fix="give the folder that --out named")
    return validate(Record, read_json(path), where=str(path))


def write_record(folder: Path, record: Record) -> None:
    """Replace the record."""
    write_json(path_of(folder), record.model_dump(mode="json"))
