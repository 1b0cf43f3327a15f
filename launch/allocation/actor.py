"""One actor rank of an RL job whose rollout servers are steps of the same job: `python -m launch.allocation.actor RUN
NOTES`. Waits for the servers' URLs, then is `rl.worker`; exit 3 when there are no servers.
"""

from __future__ import annotations

import sys
from pathlib import Path

from common.config import load
from common.errors import run_main
from launch.allocation.config import recipe_of
from launch.allocation.roles import SLACK_S, Notes
from rl.config import RLConfig


def main() -> None:
    """Wait for the servers, then become a rank."""
    run, notes = Path(sys.argv[1]), Notes(Path(sys.argv[2]))
    timeout_s = load(RLConfig, recipe_of(run)).rollout.start_timeout_s + SLACK_S
    urls = notes.wait_for_servers(timeout_s)
    from rl import worker

    sys.argv = ["rl.worker", str(run), "--rollout-urls", *urls]
    worker.main()


if __name__ == "__main__":
    run_main(main)
