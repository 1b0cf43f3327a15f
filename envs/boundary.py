"""The one place of this package where any exception is caught: a bug in a task or player becomes data.

An episode with a bug is Unscored(bug) with the traceback; the run goes on and stops when too many fail (`eval` and
`rl` count them). Errors that concern the whole run (an OsimError such as an exhausted budget) pass through, except
DataError: a malformed row concerns that row only. Cancellation passes through.
"""

from __future__ import annotations

import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from common.errors import DataError, OsimError

T = TypeVar("T")
TRACEBACK_CHARS = 4000


@dataclass(frozen=True)
class Bug:
    """An unforeseen exception, as text."""

    detail: str


async def contain(call: Awaitable[T]) -> T | Bug:
    """The result of `call`, or the bug that ended it."""
    try:
        return await call
    except DataError as e:
        return Bug(f"DataError: {e}")
    except OsimError:
        raise
    except Exception as e:  # noqa: BLE001 (the boundary)
        text = "".join(traceback.format_exception(e))
        return Bug(text if len(text) <= TRACEBACK_CHARS else "…" + text[-TRACEBACK_CHARS:])


def failure_of(call: Callable[[], None]) -> Exception | None:
    """What `call` raised: for a thread, whose own death nobody would see."""
    try:
        call()
    except Exception as e:  # noqa: BLE001 (the boundary)
        return e
    return None
