"""One torchrun agent: `python -m launch.allocation.torchrun NODES PER_NODE ADDRESS PORT MODULE ARGS…`.

Started once a node by srun, it becomes torchrun with this node's number and a static rendezvous: Slurm knows the
nodes, so nothing need be negotiated. A failed rank is not restarted here; the job script decides that.
"""

from __future__ import annotations

import os
import sys

from common.errors import UsageError, run_main


def command(nodes: str, per_node: str, address: str, port: str, node: str, module: list[str]) -> list[str]:
    """The command line of this node's agent."""
    return [
        sys.executable,
        "-m",
        "torch.distributed.run",
        f"--nnodes={nodes}",
        f"--nproc-per-node={per_node}",
        f"--node-rank={node}",
        f"--master-addr={address}",
        f"--master-port={port}",
        "--max-restarts=0",
        "-m",
        *module,
    ]


def main() -> None:
    """Never returns."""
    nodes, per_node, address, port, *module = sys.argv[1:]
    node = os.environ.get("SLURM_NODEID")
    if node is None:
        raise UsageError("SLURM_NODEID is not set", fix="this is started by srun; to run here, use `osim midtrain`")
    line = command(nodes, per_node, address, port, node, module)
    os.execv(line[0], line)


if __name__ == "__main__":
    run_main(main)
