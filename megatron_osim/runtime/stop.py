"""Stop requests: SIGTERM, SIGUSR1 (Slurm's warning before a time limit) or the file RUN_DIR/stop.

A request is remembered, never acted on in the middle of a step: the loop asks once per step, finishes it, saves and
exits 4. Midtraining and RL use the same.
"""

from __future__ import annotations

import signal
from pathlib import Path

import torch
import torch.distributed as dist

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class StopRequest:
    """Installs the signal handlers of this process; `close` gives the signals their earlier meaning back."""

    def __init__(self, run_dir: Path) -> None:
        self._file = run_dir / "stop"
        self._signalled = False
        self._previous = {number: signal.signal(number, self._note) for number in SIGNALS}

    def _note(self, _number: int, _frame: object) -> None:
        self._signalled = True

    @property
    def here(self) -> bool:
        """Whether this rank was asked to stop."""
        return self._signalled or self._file.exists()

    def seen_anywhere(self, device: torch.device) -> bool:
        """Whether any rank was asked to stop; the same answer on every rank (one all-reduce)."""
        asked = torch.tensor(float(self.here), device=device)
        dist.all_reduce(asked, op=dist.ReduceOp.MAX)
        return bool(asked.item())

    def close(self) -> None:
        """No longer catch the signals."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)
