"""`osim data deduplicate`: rows whose conversations share most of their 5-word shingles; the first one is kept.

Rows whose MinHash signatures agree in a whole band (shingles.band_keys) are candidates and compared in all
places. Deterministic. Memory: each row's place, id, 128 bytes of band keys and up to 4 candidates per band;
signatures (512 bytes per row) are on disk meanwhile.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_tools.removal import Removal
from data_tools.rows import read_batches
from data_tools.shingles import NUM_PERMUTATIONS, band_keys, signature

SIMILARITY = 0.8


def find_near_duplicates(
    files: Sequence[Path],
    *,
    similarity: float = SIMILARITY,
    default_source: str = "",
    scratch: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Removal]:
    """Rows to leave out because an earlier row is nearly the same, in corpus order. Unusable rows are passed over."""
    places: list[tuple[int, int, str, str]] = []  # file, position, source, id
    total, done = sum(f.stat().st_size for f in files), 0
    with tempfile.TemporaryFile(dir=scratch) as stored:
        for which, path in enumerate(files):
            for batch in read_batches(path, on_bad_row="skip"):
                for row in batch.rows:
                    stored.write(signature("\n".join(m.content for m in row.messages)).data)
                    places.append((which, row.position, row.source or default_source, row.id))
                done += batch.bytes_read
                if progress:
                    progress(min(done, total), total)
        stored.flush()
        if not places:
            return []
        signatures = np.memmap(stored, np.uint32, "r", shape=(len(places), NUM_PERMUTATIONS))
        original, agreement = first_alike(signatures, similarity)
    removals = []
    for i in np.flatnonzero(original < np.arange(len(places))):
        which, position, source, identity = places[i]
        first = places[original[i]]
        reference = first[3] or f"{files[first[0]]}:{first[1]}"
        detail = f"similarity {agreement[i]:.2f}"
        removals.append(Removal(str(files[which]), position, source, identity, "near-duplicate", reference, detail))
    return removals


def first_alike(signatures: NDArray[np.uint32], similarity: float) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """(index of the earliest kept row that each row is alike, its own when there is none; their similarity).

    Rows are only compared with rows that are themselves kept, so a chain of small changes is not collapsed.
    """
    count = len(signatures)
    earlier: list[list[int]] = [[] for _ in range(count)]
    for keys in band_keys(signatures).T:
        order = np.argsort(keys, kind="stable")
        same = np.diff(keys[order]) == 0
        start = 0
        for end in (np.flatnonzero(np.append(~same, True)) + 1).tolist():
            for k in range(start + 1, end):
                # The group is in corpus order; its first rows are enough to find what is kept.
                earlier[order[k]] += order[start : min(k, start + 4)].tolist()
            start = end
    original, agreement = np.arange(count), np.ones(count)
    for i in range(count):
        for j in sorted(set(earlier[i])):
            if original[j] == j:
                share = float((signatures[i] == signatures[j]).mean())
                if share >= similarity:
                    original[i], agreement[i] = j, share
                    break
    return original, agreement
