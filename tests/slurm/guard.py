"""Stops the cluster of a test session that was killed: `python -m tests.slurm.guard PARENT ROOT`.

Started beside the cluster, in a session of its own; ends with the cluster where the session ends as it should.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from tests.slurm.cluster import Cluster

POLL_S = 0.5


def main() -> None:
    parent, root = int(sys.argv[1]), Path(sys.argv[2])
    while os.getppid() == parent:
        time.sleep(POLL_S)
    Cluster.left_in(root).stop()


if __name__ == "__main__":
    main()
