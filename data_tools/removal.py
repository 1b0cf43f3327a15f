"""Removal lists: rows to leave out of a preparation, as decontamination and near-duplicate removal write them.

One JSON line per row. A row is named by its file and position, which do not change with worker counts or units.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson

from common.errors import data_errors
from common.files import read_jsonl, write_bytes


@dataclass(frozen=True)
class Removal:
    """One row to leave out, and why."""

    file: str
    position: int
    """RawRow.position."""
    source: str
    id: str
    reason: str
    reference: str
    """What it overlaps with."""
    detail: str
    """The overlapping words, or the similarity."""


def write_removals(path: Path, removals: Iterable[Removal]) -> None:
    """Write the list atomically."""
    write_bytes(path, b"".join(orjson.dumps(asdict(r)) + b"\n" for r in removals))


def excluded_positions(lists: tuple[Path, ...]) -> Mapping[str, frozenset[int]]:
    """Positions to leave out, by resolved file name."""
    out: dict[str, set[int]] = defaultdict(set)
    for path in lists:
        with data_errors(str(path), fix="write it again", what="not a removal list"):
            for record in read_jsonl(path):
                out[str(Path(record["file"]).resolve())].add(int(record["position"]))
    return {name: frozenset(positions) for name, positions in out.items()}


def count_by_source(removals: Sequence[Removal]) -> dict[str, dict[str, int]]:
    """{source: {reason: rows}}, for the report."""
    out: dict[str, dict[str, int]] = {}
    for r in removals:
        counts = out.setdefault(r.source, {})
        counts[r.reason] = counts.get(r.reason, 0) + 1
    return dict(sorted(out.items()))
