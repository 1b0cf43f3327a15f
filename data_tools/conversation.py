"""What a corpus row is, once read: messages with checked roles. The readers are jsonl.py and parquet.py.

No heavy import: the command line loads this at start.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import msgspec

Role = Literal["system", "user", "assistant", "tool"]
ROLES: tuple[Role, ...] = get_args(Role)

BATCH_BYTES = 4 << 20
"""Text per batch: large enough for what a batch costs by itself, small enough for the cache and the memory bound."""
MAX_ROW_BYTES = 256 << 20
"""A longer JSONL line is a bad row: it is never held in memory."""


class ChatMessage(msgspec.Struct, frozen=True, gc=False):
    """One message of a conversation."""

    role: Role
    content: str


@dataclass(frozen=True)
class Conversation:
    """One corpus row. `id` is the row's own, or FILE:ROW."""

    source: str
    messages: tuple[ChatMessage, ...]
    id: str


class RawRow(msgspec.Struct, frozen=True, gc=False):
    """A validated row as it stands in a file. `source` and `id` are empty when the row has none.

    `number` counts rows in the part of the file that was read, from 0, unusable ones included.
    """

    number: int
    position: int
    """Where the row is in the whole file: byte offset in (decompressed) JSONL, row number in parquet."""
    messages: list[ChatMessage]
    source: str = ""
    id: str = ""


@dataclass(frozen=True)
class BadRow:
    """A row that cannot be used. `reason` is one of utf8, json, schema, empty, too_large."""

    number: int
    reason: str
    detail: str


@dataclass(frozen=True)
class Span:
    """A part of a file: bytes [start, stop) of a plain JSONL file, row groups [start, stop) of a parquet file.

    A row belongs to the span in which its first byte lies. `stop` None is the end.
    """

    start: int = 0
    stop: int | None = None


WHOLE = Span()


class UnusableRow(Exception):
    """Inside the readers: why one row cannot be used. Never leaves them."""

    def __init__(self, reason: str, detail: str) -> None:
        self.reason, self.detail = reason, detail
        super().__init__(detail)
