"""Requests and tokens per minute, as a pure token bucket: how long must the next amount wait?"""

from __future__ import annotations

SECONDS = 60.0


class Bucket:
    """Refills at `per_minute` / 60 s; holds at most one minute's amount. Amounts are reserved in call order."""

    def __init__(self, per_minute: float, now_s: float) -> None:
        self._rate = per_minute / SECONDS
        self._capacity = per_minute
        self._level = per_minute
        self._at = now_s

    def reserve(self, amount: float, now_s: float) -> float:
        """Take `amount` now and return how many seconds to wait before using it (0.0: at once).

        An amount above one minute's worth waits as if it were one minute's worth: it can never fit.
        """
        self._level = min(self._capacity, self._level + (now_s - self._at) * self._rate)
        self._at = now_s
        self._level -= min(amount, self._capacity)
        return max(0.0, -self._level / self._rate)

    def correct(self, amount: float) -> None:
        """Return what was reserved and not used; a negative amount takes what was used beyond the reservation."""
        self._level = min(self._capacity, self._level + amount)
