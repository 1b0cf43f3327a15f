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
        factor = self.config.spike_factor
        # Half a window must be known before a jump can be told from the noise of the start.
        if factor is not None and len(self.norms) * 2 >= self.config.window:
            usual = median(self.norms)
            if grad_norm > factor * usual:
                return f"the gradient norm {grad_norm:.4g} is more than {factor:g} times the usual {usual:.4g}"
        return ""
