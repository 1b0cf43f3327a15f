"""What happens to rows longer than the sequence length: truncate, split or drop, always counted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from data_tools.assemble import ROLE_SHIFT, TRAIN_BIT
from data_tools.conversation import ROLES

Token = np.int32 | np.uint16
OnLong = Literal["truncate", "split", "drop"]
_SYSTEM = ROLES.index("system")
Piece = tuple[NDArray[Token], NDArray[np.uint8]]
"""Tokens and mask of one document."""


def shorten(
    policy: OnLong,
    tokens: NDArray[Token],
    mask: NDArray[np.uint8],
    starts: NDArray[np.int64],
    limit: int,
) -> list[Piece]:
    """Documents of at most `limit` tokens made of one longer row; those without a target are left out.

    starts: position of each message, int64[M], the first at 0 or after the template's prefix. `split` cuts between
    messages where it can and repeats leading system messages (the grounding) before every piece, when they leave
    half of the room.
    """
    if policy == "drop":
        pieces: list[Piece] = []
    elif policy == "truncate":
        pieces = [(tokens[:limit], mask[:limit])]
    else:
        bounds = [*starts.tolist(), len(tokens)]
        head = 0
        while head < len(starts) - 1 and mask[bounds[head]] >> ROLE_SHIFT == _SYSTEM:
            head += 1
        context = bounds[head] if bounds[head] <= limit // 2 else 0
        cuts = _cuts(bounds[head:] if context else [0, *bounds[1:]], limit - context)
        pieces = [_piece(tokens, mask, context, a, b) for a, b in cuts]
    return [(t, m) for t, m in pieces if (m & TRAIN_BIT).any()]


def _cuts(bounds: list[int], room: int) -> Iterator[tuple[int, int]]:
    """Spans of at most `room` tokens that cover bounds[0]..bounds[-1], cut between messages where possible."""
    start = bounds[0]
    for end, following in zip(bounds[1:], [*bounds[2:], None], strict=True):
        while end - start > room:
            # One message alone is too long: it is cut inside.
            yield start, start + room
            start += room
        if following is None or following - start > room:
            if end > start:
                yield start, end
            start = end


def _piece(tokens: NDArray[Token], mask: NDArray[np.uint8], context: int, start: int, stop: int) -> Piece:
    if not context:
        return tokens[start:stop], mask[start:stop]
    return (
        np.concatenate([tokens[:context], tokens[start:stop]]),
        # The repeated grounding is context even where its role is trained.
        np.concatenate([mask[:context] & np.uint8(0xFF - TRAIN_BIT), mask[start:stop]]),
    )
