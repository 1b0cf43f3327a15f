"""A killed test session leaves no daemon behind. Needs no Slurm: any process can stand for a daemon."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from tests.slurm.cluster import CHECKOUT

SESSION = """
import os, signal, subprocess, sys
from pathlib import Path
from tests.slurm.cluster import Cluster
cluster = Cluster(Path(sys.argv[1]))
cluster._start_guard()
daemon = subprocess.Popen(["sleep", "300"], start_new_session=True, stdout=subprocess.DEVNULL)
cluster._started(daemon.pid)
print(daemon.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def runs(process: Path) -> bool:
    """A process of /proc that has not ended; init may have yet to bury it."""
    try:
        return (process / "stat").read_text().split()[2] != "Z"
    except OSError:
        return False


def test_daemons_of_a_killed_session_are_ended_and_its_folder_is_removed(tmp_path: Path) -> None:
    root = tmp_path / "cluster"
    root.mkdir()
    command = [sys.executable, "-c", SESSION, str(root)]
    session = subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True)
    assert session.stdout is not None
    daemon = Path("/proc") / session.stdout.readline().strip()
    session.wait()
    deadline = time.monotonic() + 60
    while (runs(daemon) or root.exists()) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not runs(daemon) and not root.exists()
