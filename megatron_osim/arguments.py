"""The command line that every rank process has: `python -m MODULE RUN_DIR --rank R --world-size N --rendezvous URL`.

`launch.local` starts ranks of one machine so (URL = file:///…); torchrun and Slurm leave the defaults (env://). No
torch import: wrong arguments are told at once.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def rank_parser(description: str | None) -> argparse.ArgumentParser:
    """Gives run_dir, rank, world_size and rendezvous; `runtime.initialize` takes the last three."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("--rank", type=int, default=0)
    parser.add_argument("--world-size", type=int, default=1)
    parser.add_argument("--rendezvous", default="env://", help="file:///path on one machine, or env://")
    return parser
