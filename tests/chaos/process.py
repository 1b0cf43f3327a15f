"""Processes to disturb: `osim` command lines and functions in a process (and session) of their own.

They are forked from a small server that has imported the heavy modules once, so that a start takes milliseconds; what
they then run is the product's own code through its own outer boundary. `execute` starts a real interpreter instead.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any, ClassVar

import psutil

ROOT = Path(__file__).resolve().parents[2]
POLL_S = 0.005
LIGHT = ("launch.cli", "common.run_folder")
_context = multiprocessing.get_context("forkserver")


class Hung(Exception):
    """A process was alive at its deadline."""


class Child:
    """A started process, leader of its own session; its output goes to a file."""

    _all: ClassVar[list[Child]] = []

    def __init__(self, handle: ForkServerProcess | subprocess.Popen[bytes], log: Path, start: int) -> None:
        self._handle, self._log, self._start = handle, log, start
        assert handle.pid is not None
        self.pid: int = handle.pid
        self.began = time.monotonic()
        self.lasting = False
        """It serves several trials."""
        Child._all.append(self)

    @property
    def code(self) -> int | None:
        """Exit code; minus the signal's number for a killed one; None while it lives."""
        if isinstance(self._handle, subprocess.Popen):
            return self._handle.poll()
        return self._handle.exitcode

    def wait(self, deadline_s: float) -> int:
        """Exit code. Raises Hung at the deadline, counted from now."""
        end = time.monotonic() + deadline_s
        while (code := self.code) is None:
            if time.monotonic() > end:
                raise Hung(f"alive after {deadline_s:g} s; its output ends with\n{self.text()[-2000:]}")
            time.sleep(POLL_S)
        return code

    def send(self, number: signal.Signals) -> None:
        """Signal this process alone."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def children(self) -> list[psutil.Process]:
        """Living descendants."""
        with suppress(psutil.NoSuchProcess):
            return psutil.Process(self.pid).children(recursive=True)
        return []

    def text(self) -> str:
        """What it wrote."""
        with self._log.open("rb") as f:
            f.seek(self._start)
            return f.read().decode(errors="replace")

    def end(self) -> None:
        """Kill it and what it started."""
        left = self.children()
        self.send(signal.SIGKILL)  # itself: it may not lead its session yet
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        if isinstance(self._handle, subprocess.Popen):
            self._handle.wait()
        else:
            self._handle.join()

    @classmethod
    def end_all(cls, *, lasting: bool = True) -> None:
        """Kill every process that was started here; with lasting=False not those that serve several trials."""
        kept = [child for child in cls._all if child.lasting and not lasting]
        for child in cls._all:
            if child not in kept:
                child.end()
        cls._all[:] = kept


def preload(modules: Sequence[str]) -> None:
    """Have these imported before the first process is forked, which this waits for."""
    os.environ.setdefault("PYTHONWARNINGS", "ignore")  # of the libraries, at each of their imports
    _context.set_forkserver_preload([*LIGHT, *modules])
    first = _context.Process(target=os.getpid)
    first.start()
    first.join()


def call(function: Callable[..., Any], *arguments: Any, log: Path) -> Child:
    """Run a function at the product's outer boundary: an OsimError is printed and becomes the exit code."""
    start = log.stat().st_size if log.exists() else 0
    log.touch()
    process = _context.Process(target=_enter, args=(str(log), function, arguments))
    process.start()
    return Child(process, log, start)


def osim(*arguments: object, log: Path) -> Child:
    """An `osim` command line."""
    return call(_command, [str(a) for a in arguments], log=log)


def execute(*arguments: object, log: Path, environment: Mapping[str, str] | None = None) -> Child:
    """An `osim` command line in an interpreter of its own."""
    start = log.stat().st_size if log.exists() else 0
    with log.open("ab") as out:
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "launch", *map(str, arguments)],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            env={**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})},
            start_new_session=True,
        )
    return Child(process, log, start)


def _command(arguments: list[str]) -> None:
    from launch.cli import run

    run(arguments)


def _enter(log: str, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    os.setsid()
    fd = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for stream in (1, 2):
        os.dup2(fd, stream)
    os.chdir(ROOT)
    os.environ["OMP_NUM_THREADS"] = "1"
    sys.argv = ["osim"]
    from common.errors import run_main

    run_main(lambda: function(*arguments))
