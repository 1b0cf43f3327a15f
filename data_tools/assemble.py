"""Rendering a batch of rows at once: the same tokens and mask as `Renderer.render`, in one pass over flat arrays.

tests/data_tools compare it with the renderer row by row.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from data_tools.columns import Columns
from data_tools.conversation import ROLES
from data_tools.encoding import Encoder
from data_tools.indexed import token_dtype
from data_tools.renderer import Renderer

TRAIN_BIT = 1
ROLE_SHIFT = 1
"""Mask byte: bit 0 says the token is a target; the other bits are the index into ROLES."""


@dataclass(frozen=True)
class Documents:
    """Rendered rows back to back. One document is one row."""

    tokens: NDArray[np.int32 | np.uint16]
    """int32[T], or uint16[T] where the vocabulary is small (indexed.token_dtype)."""
    mask: NDArray[np.uint8]
    """uint8[T], see TRAIN_BIT and ROLE_SHIFT"""
    message_starts: NDArray[np.int64]
    """int64[M], position in `tokens` of each message's header."""
    message_counts: NDArray[np.int64]
    """int64[R], messages per row."""
    row_starts: NDArray[np.int64]
    """int64[R + 1], position in `tokens` of each row."""
    content_tokens: NDArray[np.int64]
    """int64[R], tokens of contents: neither headers nor end tokens."""
    trained_content_tokens: NDArray[np.int64]
    """int64[R], those of them that are targets."""
    trained_tokens: NDArray[np.int64]
    """int64[R], all targets: contents and end tokens."""


class BatchRenderer:
    """Renders rows with one renderer, encoder and set of trained roles."""

    def __init__(
        self, renderer: Renderer, encoder: Encoder, trained_roles: Collection[str], *, end_of_document: int | None
    ) -> None:
        self.encoder = encoder
        self._end_id = renderer.end_id
        self._dtype = token_dtype(renderer.vocab_size)
        self._prefix = np.array(renderer.prefix_ids, np.int32)
        self._closing = np.array(renderer.closing_ids, np.int32)
        self._tail = np.array([] if end_of_document is None else [end_of_document], np.int32)
        openings = [renderer.opening_ids(role) for role in ROLES]
        self._openings = np.array([i for ids in openings for i in ids], np.int32)
        self._opening_offsets = np.cumsum([0, *map(len, openings)])
        self._trained = np.array([role in trained_roles for role in ROLES])

    def render(self, rows: Columns) -> Documents:
        """All rows, in order."""
        roles, counts = rows.roles, rows.counts
        contents = self.encoder.encode(rows.contents)
        content_lengths = contents.stops - contents.starts

        opening_lengths = np.diff(self._opening_offsets)[roles]
        lengths = opening_lengths + content_lengths + 1 + len(self._closing)
        row_lengths = _sum_rows(lengths, counts) + len(self._prefix) + len(self._tail)
        row_starts = np.concatenate([[0], np.cumsum(row_lengths)])
        around = np.repeat(np.arange(len(rows)), counts)
        message_starts = np.cumsum(lengths) - lengths + (around + 1) * len(self._prefix) + around * len(self._tail)
        tokens = np.empty(int(row_starts[-1]), self._dtype)
        mask = np.empty(len(tokens), np.uint8)
        _scatter(
            contents.ids, contents.starts, contents.stops, roles, message_starts, self._openings,
            self._opening_offsets, self._trained, self._end_id, self._closing, tokens, mask,
        )  # fmt: skip
        _edges(row_starts, self._prefix, self._tail, tokens, mask)
        return Documents(
            tokens,
            mask,
            message_starts,
            counts,
            row_starts,
            _sum_rows(content_lengths, counts),
            _sum_rows(content_lengths * self._trained[roles], counts),
            _sum_rows((content_lengths + 1) * self._trained[roles], counts),
        )


def _sum_rows(values: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Sum of each row's consecutive `counts` values."""
    ends = np.concatenate([[0], np.cumsum(values)])[np.concatenate([[0], np.cumsum(counts)])]
    return np.diff(ends)


@njit(cache=True)
def _scatter(
    ids, starts, stops, roles, message_starts, openings, opening_offsets, trained, end_id, closing, tokens, mask
):
    """Write header, content, end token and closing of every message to its place."""
    for m in range(len(roles)):
        role = np.int64(roles[m])
        opening = openings[opening_offsets[role] : opening_offsets[role + 1]]
        content = ids[starts[m] : stops[m]]
        size = len(opening) + len(content) + 1 + len(closing)
        start = message_starts[m]
        message, marks = tokens[start : start + size], mask[start : start + size]
        plain = np.uint8(role << ROLE_SHIFT)
        target = np.uint8(plain | TRAIN_BIT) if trained[role] else plain
        _copy(opening, message, 0, marks, plain)
        _copy(content, message, len(opening), marks, target)
        end = len(opening) + len(content)
        message[end], marks[end] = end_id, target
        _copy(closing, message, end + 1, marks, plain)


@njit(cache=True, inline="always")
def _copy(ids, tokens, at, mask, mark):
    # Slices that begin at 0 are copied a vector at a time.
    target, marks = tokens[at : at + len(ids)], mask[at : at + len(ids)]
    for i in range(len(ids)):
        target[i] = ids[i]
        marks[i] = mark


@njit(cache=True)
def _edges(row_starts, prefix, tail, tokens, mask):
    """Write what stands before the first and after the last message of every row."""
    for r in range(len(row_starts) - 1):
        for i in range(len(prefix)):
            tokens[row_starts[r] + i] = prefix[i]
            mask[row_starts[r] + i] = 0
        for i in range(len(tail)):
            tokens[row_starts[r + 1] - len(tail) + i] = tail[i]
            mask[row_starts[r + 1] - len(tail) + i] = 0
