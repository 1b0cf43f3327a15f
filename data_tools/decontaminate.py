"""`osim data decontaminate`: rows of a corpus that overlap with evaluation text.

Two tests per row: an exact common n-gram of words (13 by default), and near-identity of a message with a reference
(MinHash similarity). The result is a removal list for `PrepareConfig.exclude` and a report per source. Memory holds
the references, not the corpus.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common.errors import UsageError
from data_tools.conversation import ChatMessage, RawRow
from data_tools.removal import Removal, count_by_source
from data_tools.rows import read_batches
from data_tools.shingles import band_keys, ngram_hashes, signature, word_hashes, words

NGRAM_WORDS = 13
SIMILARITY = 0.8
MIN_WORDS = 8
"""Shorter texts ("yes, I think so") are like others by chance and are not compared as wholes."""


@dataclass(frozen=True)
class Reference:
    """A text that must not be in the training data."""

    name: str
    text: str


@dataclass(frozen=True)
class DecontaminationReport:
    """What was found."""

    references: int
    short_references: int
    """Too short for both tests."""
    rows: dict[str, int]
    """Rows read, by source."""
    removals: tuple[Removal, ...]

    @property
    def by_source(self) -> dict[str, dict[str, int]]:
        """{source: {reason: rows}}"""
        return count_by_source(self.removals)


class ReferenceIndex:
    """References, ready to be searched."""

    def __init__(
        self, references: Sequence[Reference], *, n: int = NGRAM_WORDS, similarity: float = SIMILARITY
    ) -> None:
        if not references:
            raise UsageError("no reference text", fix="give evaluation files to compare with")
        self.n, self.similarity = n, similarity
        self._references = references
        grams = [ngram_hashes(word_hashes(r.text), n) for r in references]
        hashes = np.concatenate(grams)
        owners = np.repeat(np.arange(len(references)), [len(g) for g in grams])
        self._grams, first = np.unique(hashes, return_index=True)
        self._owners = owners[first]
        whole = [i for i, r in enumerate(references) if len(words(r.text)) >= MIN_WORDS]
        self._signatures = {i: signature(references[i].text) for i in whole}
        self._bands: dict[tuple[int, int], list[int]] = {}
        for i in whole:
            for key in _band_keys(self._signatures[i]):
                self._bands.setdefault(key, []).append(i)
        self.short = sum(not len(g) and i not in self._signatures for i, g in enumerate(grams))

    def common_ngram(self, text: str) -> tuple[Reference, str] | None:
        """The first n words in a row that a reference also has, and the reference."""
        grams = ngram_hashes(word_hashes(text), self.n)
        if not len(grams) or not len(self._grams):
            return None
        at = np.searchsorted(self._grams, grams)
        at[at == len(self._grams)] = 0
        for i in np.flatnonzero(self._grams[at] == grams):
            common = words(text)[i : i + self.n]
            reference = self._references[int(self._owners[at[i]])]
            # Exact: two different n-grams may share a hash.
            if f" {' '.join(common)} " in f" {' '.join(words(reference.text))} ":
                return reference, " ".join(common)
        return None

    def most_similar(self, text: str) -> tuple[Reference, float] | None:
        """The reference that the text is nearly identical to."""
        if len(words(text)) < MIN_WORDS:
            return None
        mine = signature(text)
        candidates = {i for key in _band_keys(mine) for i in self._bands.get(key, ())}
        agreement = {i: float((self._signatures[i] == mine).mean()) for i in sorted(candidates)}
        best = max(agreement, key=lambda i: agreement[i], default=None)
        if best is None or agreement[best] < self.similarity:
            return None
        return self._references[best], agreement[best]


def _band_keys(one: NDArray[np.uint32]) -> list[tuple[int, int]]:
    return list(enumerate(band_keys(one[None])[0].tolist()))


def decontaminate(
    files: Sequence[Path],
    references: Sequence[Reference],
    *,
    n: int = NGRAM_WORDS,
    similarity: float = SIMILARITY,
    default_source: str = "",
    progress: Callable[[int, int], None] | None = None,
) -> DecontaminationReport:
    """Compare every row of the corpus files with the references. Unusable rows are passed over."""
    index = ReferenceIndex(references, n=n, similarity=similarity)
    removals: list[Removal] = []
    rows: dict[str, int] = {}
    total, done = sum(f.stat().st_size for f in files), 0
    for path in files:
        for batch in read_batches(path, on_bad_row="skip"):
            for row in batch.rows:
                source = row.source or default_source
                rows[source] = rows.get(source, 0) + 1
                removal = _check(index, path, source, row)
                if removal is not None:
                    removals.append(removal)
            done += batch.bytes_read
            if progress:
                progress(min(done, total), total)
    return DecontaminationReport(len(references), index.short, dict(sorted(rows.items())), tuple(removals))


def _check(index: ReferenceIndex, path: Path, source: str, row: RawRow) -> Removal | None:
    for message in row.messages:
        found = index.common_ngram(message.content)
        if found is not None:
            return Removal(str(path), row.position, source, row.id, f"{index.n}-gram", found[0].name, found[1])
        near = index.most_similar(message.content)
        if near is not None:
            detail = f"similarity {near[1]:.2f}"
            return Removal(str(path), row.position, source, row.id, "near-identical", near[0].name, detail)
    return None


def references_from(files: Iterable[Path]) -> list[Reference]:
    """References from corpus files (every message) or plain text files (every paragraph)."""
    out: list[Reference] = []
    for path in files:
        if path.name.endswith(".txt"):
            paragraphs = path.read_text().split("\n\n")
            out += [Reference(f"{path.name}:{i}", p) for i, p in enumerate(paragraphs) if p.strip()]
            continue
        for batch in read_batches(path):
            for row in batch.rows:
                out += _row_references(path, row.number, row.messages)
    return out


def _row_references(path: Path, number: int, messages: Sequence[ChatMessage]) -> list[Reference]:
    return [Reference(f"{path.name}:{number}:{m.role}", m.content) for m in messages if m.content.strip()]
