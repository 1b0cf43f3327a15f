"""`osim data inspect`: what a shard holds, as data. Showing it (colours, tables) is the command line's work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from data_tools.conversation import ROLES
from data_tools.renderer import Renderer
from data_tools.shards import Shard

SpanKind = Literal["header", "content", "end", "other"]


@dataclass(frozen=True)
class TokenSpan:
    """Consecutive tokens of one role and kind. What closes a message after its end token is `other`."""

    kind: SpanKind
    role: str
    trained: bool
    """Its first token is a target."""
    text: str
    ids: tuple[int, ...]


@dataclass(frozen=True)
class SourceStatistics:
    """Documents of one source."""

    source: str
    documents: int
    tokens: int
    trained_tokens: int
    rows: int
    dropped: int
    """Rows and pieces left out: too long, or nothing to train on."""
    cut: int
    """Rows truncated or split."""
    mean_length: float
    p50_length: int
    p99_length: int
    longest: int

    @property
    def trained_share(self) -> float:
        """Targets over tokens."""
        return self.trained_tokens / max(1, self.tokens)


@dataclass(frozen=True)
class LengthHistogram:
    """Documents by length: edges[i] <= length < edges[i + 1]; edges are powers of two."""

    edges: tuple[int, ...]
    documents: tuple[int, ...]


def statistics(shard: Shard) -> list[SourceStatistics]:
    """One line per source, largest first. Reads index files only."""
    lengths, out = np.asarray(shard.tokens.lengths), []
    for code, source in enumerate(shard.manifest.sources):
        mine = lengths[shard.sources == code]
        count = shard.manifest.counts[source]
        p50, p99 = np.percentile(mine, [50, 99]) if len(mine) else (0, 0)
        out.append(
            SourceStatistics(
                source=source,
                documents=count.documents,
                tokens=count.tokens,
                trained_tokens=count.trained_tokens,
                rows=count.rows,
                dropped=count.dropped_long + count.dropped_untrained,
                cut=count.truncated + count.split,
                mean_length=float(mine.mean()) if len(mine) else 0.0,
                p50_length=int(p50),
                p99_length=int(p99),
                longest=int(mine.max(initial=0)),
            )
        )
    return sorted(out, key=lambda s: -s.tokens)


def length_histogram(shard: Shard) -> LengthHistogram:
    """How long the documents are."""
    longest = int(shard.tokens.lengths.max(initial=1))
    edges = 2 ** np.arange(longest.bit_length() + 1)
    documents, _ = np.histogram(shard.tokens.lengths, edges)
    return LengthHistogram(tuple(edges.tolist()), tuple(documents.tolist()))


def spans(shard: Shard, renderer: Renderer, i: int) -> list[TokenSpan]:
    """Document i cut into headers, contents and ends, with the mask laid over it."""
    tokens, train, roles = shard.document(i)
    ids = tokens.tolist()
    out: list[TokenSpan] = []
    at = 0
    while at < len(ids):
        role = ROLES[int(roles[at])]
        kind, length = _next(ids, at, renderer, role)
        stop = min(at + length, len(ids))
        piece = tuple(ids[at:stop])
        out.append(TokenSpan(kind, role, bool(train[at]), renderer.decode(piece, skip_special=False), piece))
        at = stop
    return out


def _next(ids: Sequence[int], at: int, renderer: Renderer, role: str) -> tuple[SpanKind, int]:
    """Kind and length of what starts at `at`."""
    if at == 0 and renderer.prefix_ids and tuple(ids[: len(renderer.prefix_ids)]) == renderer.prefix_ids:
        return "other", len(renderer.prefix_ids)
    if ids[at] == renderer.end_id:
        return "end", 1
    closing = renderer.closing_ids
    if closing and at and ids[at - 1] == renderer.end_id and tuple(ids[at : at + len(closing)]) == closing:
        return "other", len(closing)
    header = renderer.opening_ids(role)
    if ids[at] == header[0] and tuple(ids[at : at + len(header)]) == header[: len(ids) - at]:
        return "header", len(header)
    length = 1
    while at + length < len(ids) and ids[at + length] != renderer.end_id:
        length += 1
    return "content", length
