"""Starts N ranks of a test program once; several layouts run in one start, because importing torch and Megatron is
what costs.

A program is a module with `main(out: Path)`; it reads its rank from `RANK`. Each layout joins by its own rendezvous
file, so ranks that a layout does not use go straight on to the next one.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from megatron_osim.config import ParallelConfig
from megatron_osim.runtime import Ranks, initialize, shutdown

ROOT = Path(__file__).resolve().parents[2]


def start(module: str, world_size: int, out: Path, *, timeout_s: float = 240.0) -> None:
    """Run `module` on `world_size` ranks; raise with the log of the first rank that failed."""
    out.mkdir(parents=True, exist_ok=True)
    logs = [out / f"rank{r}.log" for r in range(world_size)]
    processes = []
    try:
        for rank, log in enumerate(logs):
            with log.open("wb") as f:
                processes.append(
                    subprocess.Popen(
                        [sys.executable, "-W", "ignore", "-m", module, str(out)],
                        cwd=ROOT,
                        env={**os.environ, "RANK": str(rank), "WORLD_SIZE": str(world_size), "OMP_NUM_THREADS": "1"},
                        stdout=f,
                        stderr=subprocess.STDOUT,
                    )
                )
        codes = [p.wait(timeout_s) for p in processes]
    finally:
        for p in processes:
            p.kill()
            p.wait()
    for code, log in zip(codes, logs, strict=True):
        assert code == 0, f"{log.name} ended with {code}:\n{log.read_text()[-4000:]}"


@contextmanager
def layout(parallel: ParallelConfig, world_size: int, rendezvous: Path, *, seed: int = 0) -> Iterator[Ranks | None]:
    """Join a job of the first `world_size` ranks; None on the others."""
    rank = int(os.environ["RANK"])
    if rank >= world_size:
        yield None
        return
    ranks = initialize(
        parallel,
        seed=seed,
        rank=rank,
        world_size=world_size,
        rendezvous=rendezvous.as_uri(),
        timeout_s=120.0,
    )
    try:
        yield ranks
    finally:
        shutdown()
