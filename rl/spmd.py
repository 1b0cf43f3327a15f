"""What keeps the ranks of one run in step: rank 0 decides, all ranks follow.

Every rank runs the same loop. Rank 0 also owns engines, episodes and the ledger; its results reach the others through
`from_first`, and an OsimError there is raised on every rank, so that none is left waiting in a collective. All waits
have the process group's deadline.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist

from common.errors import ExitCode, OsimError
from megatron_osim.runtime import Ranks

T = TypeVar("T")


class FailedOnFirstRank(OsimError):
    """Rank 0 ended with this error; raised on the other ranks."""

    def __init__(self, text: str, exit_code: ExitCode) -> None:
        super().__init__(text, where="rank 0")
        self.exit_code = exit_code


@dataclass(frozen=True)
class _Failure:
    text: str
    exit_code: ExitCode


def from_first(ranks: Ranks, make: Callable[[], T]) -> T:
    """The result of `make()` on rank 0, on every rank; or its OsimError, on every rank."""
    box: list[T | _Failure | None] = [None]
    error: OsimError | None = None
    if ranks.is_first:
        try:
            box[0] = make()
        except OsimError as e:
            error, box[0] = e, _Failure(str(e), e.exit_code)
    if ranks.world_size > 1:
        dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
    if error is not None:
        raise error
    found = box[0]
    if isinstance(found, _Failure):
        raise FailedOnFirstRank(found.text, found.exit_code)
    return found  # type: ignore[return-value]
