"""N ranks of one run on this machine, without torchrun.

Runs in the process of the command. Each rank is `python -m MODULE RUN_DIR --rank R --world-size N --rendezvous
file:///…` in its own session, with its output appended to RUN_DIR/logs/rankR.log. Invariants
(tests/launch/test_local.py):

* the exit code of the first failing rank decides, and its error text or last log lines reach the user;
* Ctrl-C and SIGTERM become a stop request (SIGTERM to the ranks: finish the step, save, exit 4); what has not
  ended after the grace, or at a second Ctrl-C, is killed with its group;
* whatever happens, no rank is left behind (see `launch.rank`).
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from common.errors import ERROR_MARK, ExitCode, Interrupted, OsimError
from common.files import read_tail
from common.processes import kill_group

STOP_GRACE_S = 120.0
"""How long ranks may take from a stop request to their exit: one step and one checkpoint."""
PEER_GRACE_S = 4.0
"""How long the other ranks may take to report their own error after the first one failed."""
POLL_S = 0.1
LOG_TAIL_LINES = 20
LOG_BYTES = 1 << 16


class RankFailed(OsimError):
    """A rank ended with an error; carries that rank's exit code where it is one of ours."""

    def __init__(self, what: str, *, exit_code: ExitCode, where: str = "", fix: str = "") -> None:
        super().__init__(what, where=where, fix=fix)
        self.exit_code = exit_code


class RankCrashed(RuntimeError):
    """A rank died of something that is not an OsimError: a bug, a signal, lack of memory."""


@dataclass
class _Rank:
    number: int
    process: subprocess.Popen[bytes]
    log: Path
    log_start: int
    ended: float | None = None


@dataclass
class _StopRequest:
    """Set by the signal handlers; `count` > 1 means that the user insists."""

    count: int = 0
    names: list[str] = field(default_factory=list)


def run_local(
    module: str,
    run_dir: Path,
    world_size: int,
    *,
    arguments: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    on_poll: Callable[[], None] | None = None,
    stop_grace_s: float = STOP_GRACE_S,
) -> None:
    """Run `module` on `world_size` local ranks to the end.

    on_poll is called about ten times a second (progress). Raises Interrupted after a stop request, RankFailed with
    a worker's own error, RankCrashed with the last log lines of a rank that crashed.
    """
    (run_dir / "logs").mkdir(parents=True, exist_ok=True)
    (run_dir / "stop").unlink(missing_ok=True)  # a stop request of an earlier run of this folder
    with tempfile.TemporaryDirectory(prefix="osim-rendezvous-") as folder, _signals() as stop:
        ranks: list[_Rank] = []
        try:
            for number in range(world_size):
                url = f"file://{folder}/store"  # not as_uri(): torch does not decode what that encodes
                command = [str(run_dir), "--rank", str(number), "--world-size", str(world_size), "--rendezvous", url]
                ranks.append(_start(number, [module, *command, *arguments], run_dir, environment or {}, world_size))
            _wait(ranks, stop, on_poll, stop_grace_s)
        finally:
            _kill(ranks)
    _raise_for(ranks, stop)


def _start(number: int, command: list[str], run_dir: Path, environment: Mapping[str, str], world_size: int) -> _Rank:
    log = run_dir / "logs" / f"rank{number}.log"
    log_start = log.stat().st_size if log.exists() else 0
    threads = str(max(1, (os.cpu_count() or 1) // world_size))
    with log.open("ab") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "launch.rank", str(os.getpid()), *command],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            env={"OMP_NUM_THREADS": threads, "PYTHONUNBUFFERED": "1", **os.environ, **environment},
            start_new_session=True,
        )
    return _Rank(number, process, log, log_start)


@contextlib.contextmanager
def _signals() -> Iterator[_StopRequest]:
    """Count SIGINT and SIGTERM instead of dying of them. Outside the main thread there is nothing to catch."""
    stop = _StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def note(number: int, _frame: object) -> None:
        stop.count += 1
        stop.names.append(signal.Signals(number).name)

    old = {s: signal.signal(s, note) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def _wait(ranks: list[_Rank], stop: _StopRequest, on_poll: Callable[[], None] | None, grace_s: float) -> None:
    """Until every rank has ended, a failure's peers had their time, or the grace after a stop request is over."""
    asked: float | None = None
    while True:
        now = time.monotonic()
        for rank in ranks:
            if rank.ended is None and rank.process.poll() is not None:
                rank.ended = now
        if all(rank.ended is not None for rank in ranks):
            return
        failed = [r.ended for r in ranks if r.ended is not None and r.process.returncode]
        if failed and now - min(failed) > PEER_GRACE_S:
            return
        if stop.count and asked is None:
            asked = now
            for rank in ranks:
                _signal(rank, signal.SIGTERM)
        if stop.count > 1 or (asked is not None and now - asked > grace_s):
            return
        if on_poll:
            on_poll()
        time.sleep(POLL_S)


def _signal(rank: _Rank, number: signal.Signals) -> None:
    if rank.process.poll() is None:
        rank.process.send_signal(number)


def _kill(ranks: list[_Rank]) -> None:
    """Kill what is left of every rank's own session, also what an ended rank left in its group."""
    for rank in ranks:
        kill_group(rank.process)


def _raise_for(ranks: list[_Rank], stop: _StopRequest) -> None:
    failed = [r for r in ranks if r.process.returncode]
    own = [r for r in failed if r.process.returncode in (ExitCode.USAGE, ExitCode.GATE)]
    if own:
        text = _own_error(own[0]) or log_tail(own[0].log, own[0].log_start)
        raise RankFailed(text, exit_code=ExitCode(own[0].process.returncode))
    if stop.count or any(r.process.returncode == ExitCode.INTERRUPTED for r in failed):
        if all(r.process.returncode in (0, ExitCode.INTERRUPTED) for r in ranks):
            raise Interrupted("stopped; the last step is saved")
        raise Interrupted("killed before it could save; resumes from its last checkpoint")
    if failed:
        # Ranks that were still waiting for the crashed one were killed by us: they have no `ended`.
        rank = min(failed, key=lambda r: r.ended if r.ended is not None else float("inf"))
        tail = log_tail(rank.log, rank.log_start)
        raise RankCrashed(
            f"rank {rank.number} {_how(rank.process.returncode)}; {rank.log} ends with\n{tail}\n"
            "once the cause is gone, the same command resumes from the newest whole checkpoint"
        )


def _how(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    name = signal.Signals(-code).name
    return f"was killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")


def _own_error(rank: _Rank) -> str:
    """The text of the OsimError that this rank printed last, or ''."""
    return last_error(read_tail(rank.log, LOG_BYTES, start=rank.log_start))


def last_error(log: str) -> str:
    """The text of the OsimError that ends a process's output, or ''."""
    at = log.rfind("\n" + ERROR_MARK)
    if at < 0:
        return log.removeprefix(ERROR_MARK).rstrip() if log.startswith(ERROR_MARK) else ""
    return log[at + 1 + len(ERROR_MARK) :].rstrip()


def log_tail(log: Path, start: int = 0, lines: int = LOG_TAIL_LINES) -> str:
    """The last lines of a log, of what was written after byte `start`."""
    return "\n".join(read_tail(log, LOG_BYTES, start=start).splitlines()[-lines:])
