"""What to repeat, and when. Pure.

| failure                                   | then                                             |
| 429                                       | wait Retry-After (or back off), cut concurrency  |
| 408, 409, 5xx, connection, time-out       | wait Retry-After or back off                     |
| a body that is no chat completion         | back off                                         |
| 401, 404, exhausted quota                 | stop the run: every other call would fail too    |
| content filter, other 4xx                 | give up this question                            |
"""

from __future__ import annotations

from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Literal

from common.seeds import derive_rng

FailureKind = Literal[
    "rate_limit",
    "server",
    "connection",
    "timeout",
    "malformed",
    "credentials",
    "refused",
    "bad_request",
    "not_recorded",
    "deadline",
    "invalid_reply",
]
RETRIED: frozenset[FailureKind] = frozenset({"rate_limit", "server", "connection", "timeout", "malformed"})
BACKOFF_START_S = 0.5
BACKOFF_LIMIT_S = 30.0


@dataclass(frozen=True)
class Failure:
    """Why one attempt failed."""

    kind: FailureKind
    detail: str
    retry_after_s: float | None = None

    @property
    def repeat(self) -> bool:
        return self.kind in RETRIED


def kind_of_status(status: int, code: str | None) -> FailureKind:
    """The failure that an HTTP status means; `code` is the API's own error code."""
    if code == "content_filter":
        return "refused"
    if status in (401, 404) or code == "insufficient_quota":
        return "credentials"
    if status == 429:
        return "rate_limit"
    if status in (408, 409) or status >= 500:
        return "server"
    return "refused" if status == 403 else "bad_request"


def wait_s(failure: Failure, attempt: int, seed: int) -> float:
    """Seconds before attempt `attempt + 1`: Retry-After, else exponential back-off with jitter in [0.5, 1)."""
    if failure.retry_after_s is not None:
        return failure.retry_after_s
    longest = min(BACKOFF_LIMIT_S, BACKOFF_START_S * 2**attempt)
    return longest * (0.5 + derive_rng(seed, "backoff", attempt).random() / 2)


def parse_retry_after(value: str | None, now_s: float) -> float | None:
    """Seconds from a Retry-After header (a number or an HTTP date; `now_s` is Unix time); None if there is none."""
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - now_s)
    except (ValueError, TypeError, LookupError, OverflowError):
        return None
