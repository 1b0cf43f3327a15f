"""Rows as columns: what the readers give and preparation works on, which never touches messages one by one.

Rows as objects (`RowBatch.rows`) are for everything that is not in a hurry.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from data_tools.conversation import ROLES, BadRow, ChatMessage, RawRow
from data_tools.labels import Labels
from data_tools.texts import Texts

_ROLE_CODE = {role: code for code, role in enumerate(ROLES)}


@dataclass(frozen=True)
class Columns:
    """The messages of consecutive rows, column by column. R rows with M messages in all."""

    contents: Texts
    """M"""
    roles: NDArray[np.uint8]
    """uint8[M], index into ROLES."""
    counts: NDArray[np.int64]
    """int64[R], messages per row."""
    sources: Labels
    """R; empty where a row names none."""

    def __len__(self) -> int:
        return len(self.counts)

    @classmethod
    def of(cls, rows: Sequence[Sequence[ChatMessage]], sources: Sequence[str] | None = None) -> Columns:
        """Columns of rows of messages."""
        messages = [m for row in rows for m in row]
        return cls(
            Texts.of(m.content for m in messages),
            np.array([_ROLE_CODE[m.role] for m in messages], np.uint8),
            np.array([len(row) for row in rows], np.int64),
            Labels.of(sources if sources is not None else [""] * len(rows)),
        )

    @cached_property
    def row_starts(self) -> NDArray[np.int64]:
        """int64[R + 1], each row's first message."""
        return np.concatenate([[0], np.cumsum(self.counts)])

    def messages(self, row: int) -> list[ChatMessage]:
        """The messages of one row."""
        span = range(self.row_starts[row], self.row_starts[row + 1])
        return [ChatMessage(ROLES[self.roles[i]], self.contents[i]) for i in span]

    def take(self, rows: NDArray[np.int64]) -> Columns:
        """These rows, in this order; a row may be taken more than once."""
        counts = self.counts[rows]
        ends = np.cumsum(counts)
        picked = np.arange(ends[-1] if len(ends) else 0) + np.repeat(self.row_starts[rows] - (ends - counts), counts)
        return Columns(self.contents.take(picked), self.roles[picked], counts, self.sources.take(rows))


@dataclass(frozen=True)
class RowBatch:
    """Consecutive rows of one file: the usable ones, as columns and as objects, and the others."""

    columns: Columns
    """The usable rows."""
    read_ids: Callable[[], Sequence[str | int | None]]
    """Gives R ids, as they stand in the file: preparation needs none."""
    numbers: NDArray[np.int64]
    """int64[R], RawRow.number"""
    locate: Callable[[], NDArray[np.int64]]
    """Finds `positions`: few readers need them."""
    bad: list[BadRow]
    bytes_read: int
    """Input bytes that this batch consumed, as `InputFile` sizes count them (for progress)."""

    @cached_property
    def positions(self) -> NDArray[np.int64]:
        """int64[R], RawRow.position"""
        return self.locate()

    @cached_property
    def rows(self) -> list[RawRow]:
        """The usable rows, one by one."""
        places = zip(self.numbers.tolist(), self.positions.tolist(), self.read_ids(), strict=True)
        return [
            RawRow(number, at, self.columns.messages(i), self.columns.sources[i], "" if row is None else str(row))
            for i, (number, at, row) in enumerate(places)
        ]
