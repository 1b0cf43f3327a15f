"""The folder of one run: config.yaml, manifest.json, metrics.jsonl, ledger/, checkpoints/, logs/, report.html.

One process owns a run folder at a time: `RunFolder.open` takes an advisory lock that dies with the process.
A folder that was made with another configuration is refused rather than mixed; what says nothing of
the results may differ (`Config.computed`).
"""

from __future__ import annotations

import fcntl
import importlib.metadata
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.config import C, Config, dump_yaml, load
from common.errors import OsimError, UsageError, data_errors
from common.files import append_jsonl, exclusive, read_jsonl, repair_jsonl_tail, write_json, write_text
from common.redact import redact

PACKAGES = ("torch", "megatron-core", "transformers", "tokenizers", "numpy", "pydantic", "sglang")


@dataclass(frozen=True)
class RunFolder:
    """Paths of one run. Opening is idempotent; a second process on the same folder is refused."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def manifest(self) -> Path:
        return self.path / "manifest.json"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def ledger(self) -> Path:
        return self.path / "ledger"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    @property
    def _lock_file(self) -> Path:
        return self.path / ".lock"

    @classmethod
    def prepare(cls, path: Path, config: Config, *, inputs: Mapping[str, str] | None = None) -> RunFolder:
        """Create the folder, or check that the existing one was made for the same results.

        `inputs` are content hashes of what the run reads (data, prompts, checkpoints); they go to the manifest.
        """
        run = cls(path)
        before = _read(run.config, type(config))
        if run.config.exists() and (before is None or before.computed() != config.computed()):
            raise UsageError(
                "this run folder was made with another configuration",
                where=str(path),
                fix="give another output folder, or the recipe and overrides that made this one "
                f"(they are in {run.config})",
            )
        for folder in (path, run.ledger, run.checkpoints, run.logs):
            folder.mkdir(parents=True, exist_ok=True)
        if not run.config.exists():
            write_json(run.manifest, describe_environment() | {"inputs": dict(inputs or {})})
        if before != config:
            write_text(run.config, dump_yaml(config))
        return run

    @contextmanager
    def lock(self) -> Iterator[int]:
        """Hold the folder for this process. What a killed owner left unfinished in metrics.jsonl is cut off.

        Gives the descriptor of `exclusive`.
        """
        with exclusive(self._lock_file, where=self.path) as descriptor:
            repair_jsonl_tail(self.metrics)
            yield descriptor

    def owner(self) -> int | None:
        """The process that holds the folder now, None for nobody, -1 where it did not write who it is."""
        if not self._lock_file.exists():
            return None
        with self._lock_file.open("r", errors="replace") as f:
            try:
                fcntl.flock(f, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                text = f.read().strip()
                return int(text) if text.isdecimal() and len(text) < 20 else -1
        return None

    def log_metrics(self, step: int, phase: str, values: Mapping[str, Any]) -> None:
        """Append one line to metrics.jsonl: {"step", "phase", "time", **values}."""
        append_jsonl(self.metrics, {"step": step, "phase": phase, "time": time.time(), **values})

    def read_metrics(self, phase: str | None = None) -> list[dict[str, Any]]:
        """All metric lines, oldest first; when a resumed run logged a step again, the newer line wins."""
        if not self.metrics.exists():
            return []
        last: dict[tuple[str, int], dict[str, Any]] = {}
        for line in read_jsonl(self.metrics):
            with data_errors(str(self.metrics), fix="remove the line", what=f"not a line of metrics: {line!r:.80}"):
                if phase is None or line["phase"] == phase:
                    last[line["phase"], line["step"]] = line
        return list(last.values())


def _read(path: Path, model: type[C]) -> C | None:
    """The configuration in the file, with defaults for keys that it lacks; None when there is none."""
    try:
        return load(model, path)
    except OsimError:
        return None


def describe_environment() -> dict[str, Any]:
    """What a later reader needs to repeat the run: commit, versions, machine, command."""
    return {
        "git": _git_state(),
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
        "command": [redact(word) for word in sys.argv],
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git_state() -> dict[str, Any] | None:
    root = Path(__file__).resolve().parent

    def git(*args: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(root), *args], capture_output=True, text=True, timeout=10, check=True
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip()

    commit = git("rev-parse", "HEAD")
    return {"commit": commit, "dirty": bool(git("status", "--porcelain"))} if commit else None
