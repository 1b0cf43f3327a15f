"""Start one SGLang server: `python launch.py PARENT_PID [SGLang's own flags]`.

Runs in the rollout server's environment, as a session leader started by `rl.rollout.server`. SGLang spawns its
scheduler and detokenizer, which import this file again: that is how the shims reach them. The server ends with the
process that started it, however that one ends: a thread watches PARENT_PID and kills the whole group.
The key that it demands comes in OSIM_ROLLOUT_API_KEY, which no other user can read, and stays out of its log.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from typing import Any

import shims

shims.apply()

PARENT_POLL_S = 0.5
KEY = os.environ.get("OSIM_ROLLOUT_API_KEY", "")


def hide_in_logs(key: str) -> None:
    """SGLang logs all its arguments, its key too."""
    make = logging.getLogRecordFactory()

    def made(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make(*args, **kwargs)
        text = f"{record.msg} {record.args or ''}"
        if key in text:
            record.msg, record.args = text.replace(key, "[redacted]"), ()
        return record

    logging.setLogRecordFactory(made)


if KEY:
    hide_in_logs(KEY)


def watch_parent(parent: int) -> None:
    """Kill this process group once `parent` is no longer our parent."""
    while os.getppid() == parent:
        time.sleep(PARENT_POLL_S)
    os.killpg(os.getpgid(0), signal.SIGKILL)


def main() -> None:
    parent, *flags = sys.argv[1:]
    if not KEY:
        sys.exit("no key in OSIM_ROLLOUT_API_KEY: this server would answer everybody")
    threading.Thread(target=watch_parent, args=(int(parent),), name="parent-watch", daemon=True).start()
    from sglang.launch_server import run_server
    from sglang.srt.server_args import prepare_server_args

    arguments = prepare_server_args(flags)
    arguments.api_key = KEY
    run_server(arguments)


if __name__ == "__main__":
    main()
