"""Stop requests: SIGTERM, SIGUSR1 (Slurm's warning before a time limit) or the file RUN_DIR/stop.

A request is remembered, never acted on in the middle of a step: the loop asks once per step, finishes it, saves and
exits 4.
"""

from __future__ import annotations

import signal
from pathlib import Path

import torch
import torch.distributed as dist


class StopRequest:
    """Installs the signal handlers of this process."""

    def __init__(self, run_dir: Path) -> None:
        self._file = run_dir / "stop"
        self._signalled = False
        for number in (signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, self._note)

    def _note(self, _number: int, _frame: object) -> None:
        self._signalled = True

    def seen_anywhere(self, device: torch.device) -> bool:
        """Whether any rank was asked to stop; the same answer on every rank (one all-reduce)."""
        asked = torch.tensor(float(self._signalled or self._file.exists()), device=device)
        dist.all_reduce(asked, op=dist.ReduceOp.MAX)
        return bool(asked.item())
