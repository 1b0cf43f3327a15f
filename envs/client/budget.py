"""What calls cost, and the limit that a run may spend. Pure.

A call reserves its worst case before it is sent and settles what it cost: the limit holds with any number of calls
in flight.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from common.errors import GateError
from envs.client.config import Price

CHARACTERS_PER_TOKEN = 3.0
"""Typical of prose; for rate limits, which are corrected by the real count."""
PER_MILLION = 1e-6


class BudgetExceeded(GateError):
    """The next call could exceed max_usd: the run stops; what is done stays recorded."""


class Budget:
    """Dollars spent and reserved in this process, against a limit (None: no limit)."""

    def __init__(self, max_usd: float | None, spent_usd: float = 0.0) -> None:
        self.max_usd, self.spent_usd, self.reserved_usd = max_usd, spent_usd, 0.0

    def reserve(self, usd: float) -> None:
        """Set `usd` aside. Raises BudgetExceeded."""
        if self.max_usd is not None and self.spent_usd + self.reserved_usd + usd > self.max_usd:
            raise BudgetExceeded(
                f"${self.spent_usd:.4f} spent and ${self.reserved_usd:.4f} in flight; the next call may cost "
                f"${usd:.4f}, the limit is ${self.max_usd:.4f}",
                where="client budget",
                fix="raise client.max_usd and run the same command again: finished work is not repeated",
            )
        self.reserved_usd += usd

    def settle(self, reserved_usd: float, cost_usd: float) -> None:
        """Replace a reservation by the real cost."""
        self.reserved_usd -= reserved_usd
        self.spent_usd += cost_usd


def cost_usd(price: Price, prompt_tokens: int, completion_tokens: int) -> float:
    """What a call of so many tokens costs."""
    return (price.prompt * prompt_tokens + price.completion * completion_tokens) * PER_MILLION


def estimate_tokens(characters: int) -> int:
    """A likely count for texts whose tokenizer is not known."""
    return int(characters / CHARACTERS_PER_TOKEN) + 8


def most_tokens(request: Mapping[str, Any]) -> int:
    """A count that no byte-level tokenizer exceeds: the bytes of everything sent, schema and markup included."""
    return len(orjson.dumps(request))
