"""Entry of one local rank: `python -m launch.rank MODULE ARGS…` runs MODULE, bound to the life of its parent.

Runs in every process that `launch.local` starts. When the parent dies, by whatever cause, the rank gets SIGTERM
(its stop request: finish the step, save, exit 4); one that has not ended `ORPHAN_GRACE_S` later is killed with
its group. So a run never outlives the command that started it.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading
import time

from common.processes import signal_at_parents_death

ORPHAN_GRACE_S = 60.0
POLL_S = 0.5


def die_with_parent(parent: int, grace_s: float = ORPHAN_GRACE_S) -> None:
    """Ask the kernel for SIGTERM at the parent's death, and watch for a rank that does not obey it."""
    signal_at_parents_death(signal.SIGTERM)
    if os.getppid() != parent:  # it died before the request was in place
        sys.exit(signal.SIGTERM + 128)
    threading.Thread(target=_watch, args=(parent, grace_s), name="parent-watch", daemon=True).start()


def _watch(parent: int, grace_s: float) -> None:
    while os.getppid() == parent:
        time.sleep(POLL_S)
    if sys.platform != "linux":
        os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(grace_s)
    os.killpg(os.getpgid(0), signal.SIGKILL)


def main() -> None:
    parent, module, *arguments = sys.argv[1:]
    die_with_parent(int(parent))
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
