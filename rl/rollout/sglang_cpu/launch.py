"""Start one SGLang server: `python launch.py PARENT_PID [SGLang's own flags]`.

Runs in the rollout server's environment, as a session leader started by `rl.rollout.server`. SGLang spawns its
scheduler and detokenizer, which import this file again: that is how the shims reach them. The server ends with the
process that started it, however that one ends: a thread watches PARENT_PID and kills the whole group.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

import shims

shims.apply()

PARENT_POLL_S = 0.5


def watch_parent(parent: int) -> None:
    """Kill this process group once `parent` is no longer our parent."""
    while os.getppid() == parent:
        time.sleep(PARENT_POLL_S)
    os.killpg(os.getpgid(0), signal.SIGKILL)


def main() -> None:
    parent, *arguments = sys.argv[1:]
    threading.Thread(target=watch_parent, args=(int(parent),), name="parent-watch", daemon=True).start()
    from sglang.launch_server import run_server
    from sglang.srt.server_args import prepare_server_args

    run_server(prepare_server_args(arguments))


if __name__ == "__main__":
    main()
