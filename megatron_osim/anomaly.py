"""Watches loss and gradient norm, and decides what a step with a bad one does to the weights: nothing.

Every rank sees the same numbers and so decides the same.
"""

from __future__ import annotations

import math
from collections import deque
from statistics import median

from megatron_osim.config import AnomalyConfig


class AnomalyWatch:
    """Call `accept` with each step's numbers before the update; `reason` says why the last one was refused."""

    def __init__(self, config: AnomalyConfig) -> None:
        self.config = config
        self.norms: deque[float] = deque(maxlen=config.window)
        self.losses: deque[float] = deque(maxlen=config.window)
        self.reason = ""
        self.skipped_in_a_row = 0

    def accept(self, loss: float, grad_norm: float) -> bool:
        """Whether the update may happen."""
        self.reason = self._judge(loss, grad_norm)
        if self.reason:
            self.skipped_in_a_row += 1
            return False
        self.skipped_in_a_row = 0
        self.norms.append(grad_norm)
        self.losses.append(loss)
        return True

    @property
    def must_stop(self) -> bool:
        """After a refusal: the run should end."""
        return self.config.action == "stop" or self.skipped_in_a_row > self.config.max_skips

    def _judge(self, loss: float, grad_norm: float) -> str:
        if not math.isfinite(loss):
            return f"the loss is {loss}"
        if not math.isfinite(grad_norm):
            return f"the gradient norm is {grad_norm}"
        return self._spike("gradient norm", grad_norm, self.norms, self.config.spike_factor) or self._spike(
            "loss", loss, self.losses, self.config.loss_spike_factor
        )

    def _spike(self, name: str, value: float, earlier: deque[float], factor: float | None) -> str:
        # Half a window must be known before a jump can be told from the noise of the start.
        if factor is None or len(earlier) * 2 < self.config.window:
            return ""
        usual = median(earlier)
        if value <= factor * usual:
            return ""
        return f"the {name} {value:.4g} is more than {factor:g} times the usual {usual:.4g}"
