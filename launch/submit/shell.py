"""Commands and files of the machine that submits: this one, or a login node behind SSH.

SSH uses the user's own client and configuration (keys, jump hosts, known hosts), never asks for a password and shares
one connection for a minute. A command that fails or exceeds its deadline is a ShellError with its own words.
"""

from __future__ import annotations

import shlex
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from common.errors import OsimError
from common.files import read_tail, write_text

TIMEOUT_S = 60.0
SSH_FAILED = 255
CONNECTION_KEPT_S = 60


class ShellError(OsimError):
    """A command did not succeed."""


class Shell(Protocol):
    """One machine."""

    @property
    def name(self) -> str:
        """For messages."""

    def run(self, command: Sequence[str], *, timeout_s: float = TIMEOUT_S) -> str:
        """Its output. Raises ShellError."""

    def write(self, path: Path, text: str) -> None:
        """Replace a file atomically; its folder is made."""

    def read(self, path: Path, *, last_bytes: int | None = None) -> str | None:
        """A file's text, or its end; None when it is not there."""

    def glob(self, folder: Path, pattern: str) -> list[Path]:
        """Files and folders of `folder`, oldest first."""


@dataclass(frozen=True)
class LocalShell:
    """This machine."""

    name: str = "this machine"

    def run(self, command: Sequence[str], *, timeout_s: float = TIMEOUT_S) -> str:
        return _run(command, None, timeout_s, shlex.join(command))

    def write(self, path: Path, text: str) -> None:
        write_text(path, text)

    def read(self, path: Path, *, last_bytes: int | None = None) -> str | None:
        if not path.is_file():
            return None
        return path.read_text(errors="replace") if last_bytes is None else read_tail(path, last_bytes)

    def glob(self, folder: Path, pattern: str) -> list[Path]:
        return sorted(folder.glob(pattern), key=lambda p: (p.stat().st_mtime, p.name))


@dataclass(frozen=True)
class SshShell:
    """A login node. `setup` are shell lines before each command (module load …)."""

    host: str
    setup: tuple[str, ...] = ()
    config: Path | None = None
    """Configuration file instead of the user's own."""

    @property
    def name(self) -> str:
        return self.host

    def run(self, command: Sequence[str], *, timeout_s: float = TIMEOUT_S) -> str:
        return self._run("\n".join([*self.setup, shlex.join(command)]), None, timeout_s)

    def write(self, path: Path, text: str) -> None:
        temporary = path.with_name(f".{path.name}.tmp")
        folder, names = shlex.quote(str(path.parent)), [shlex.quote(str(p)) for p in (temporary, path)]
        self._run(f"mkdir -p {folder} && cat >{names[0]} && mv {names[0]} {names[1]}", text, TIMEOUT_S)

    def read(self, path: Path, *, last_bytes: int | None = None) -> str | None:
        name = shlex.quote(str(path))
        show = f"cat {name}" if last_bytes is None else f"tail -c {last_bytes} {name}"
        marked = self._run(f"if [ -f {name} ]; then echo there; {show}; fi", None, TIMEOUT_S)
        found, _, text = marked.partition("\n")
        return text if found == "there" else None

    def glob(self, folder: Path, pattern: str) -> list[Path]:
        listing = self._run(
            f"cd {shlex.quote(str(folder))} 2>/dev/null && ls -1tr -d {pattern} 2>/dev/null || true", None, TIMEOUT_S
        )
        return [folder / line for line in listing.splitlines()]

    def _run(self, script: str, stdin: str | None, timeout_s: float) -> str:
        control = Path(tempfile.gettempdir()) / "osim-ssh-%C"
        options = ["-o", "BatchMode=yes", "-o", "ControlMaster=auto", "-o", f"ControlPath={control}"]
        options += ["-o", f"ControlPersist={CONNECTION_KEPT_S}"]
        client = ["ssh", "-F", str(self.config)] if self.config else ["ssh"]
        return _run(
            [*client, *options, self.host, "--", script], stdin, timeout_s, script.splitlines()[-1], self.host
        )


def _run(command: Sequence[str], stdin: str | None, timeout_s: float, shown: str, host: str = "") -> str:
    where = f"{host}: {shown:.200}" if host else f"{shown:.200}"
    try:
        done = subprocess.run(
            command,
            input=stdin or "",
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
        )
    except FileNotFoundError:
        raise ShellError("no such program", where=where, fix="run it on a login node, or set slurm.host") from None
    except subprocess.TimeoutExpired:
        raise ShellError(
            f"no answer within {timeout_s:.0f} s", where=where, fix="try again; is it overloaded?"
        ) from None
    if done.returncode:
        said = done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}"
        fix = f"try: ssh {host} true" if host and done.returncode == SSH_FAILED else ""
        raise ShellError(said[-2000:], where=where, fix=fix)
    return done.stdout
