"""What is asked of processes, wherever we start them: their environment, and that they end when they should."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Mapping

RENDEZVOUS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""Variables of one rank of a torch job. A server that inherited them would join the trainer's."""
PR_SET_PDEATHSIG = 1


def server_environment(own: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Our environment for an inference server: without the trainer's rendezvous, and models from disk alone."""
    return {name: value for name, value in own.items() if name not in RENDEZVOUS} | {"HF_HUB_OFFLINE": "1"}


def kill_group(leader: subprocess.Popen[bytes]) -> None:
    """SIGKILL to the group of a session leader, also to what an ended one has left in it; waits for the leader."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader.pid, signal.SIGKILL)
    leader.wait()


def signal_at_parents_death(number: signal.Signals) -> None:
    """Ask the kernel to send `number` to this process when its parent ends. Linux alone can; elsewhere nothing."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, number)
