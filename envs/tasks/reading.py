"""From a benchmark's files to rows, where a record may give several rows and says whose it is. Pure but for reading.

A task gives a function from one record to (cluster, data) pairs, the data being of the task's schema (schema.py);
numbering, the check of a record's own `data_source`, and the invented example rows of `osim task check` are here. A
malformed record is a DataError that names the file, the record and every field that is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from common.errors import DataError, data_errors
from common.files import hash_json
from envs.tasks.files import RECORD_FIX, read_records, unfold
from envs.tasks.schema import RowData, row_of
from envs.types import Row

Made = Iterable[tuple[str, RowData]]
"""Rows of one record: the cluster and the data of each."""


def swapping(*fields: str) -> Callable[[Row, Row], Row]:
    """`TaskSpec.imposter` of a task whose persona stands in these fields."""
    return lambda row, other: replace(row, data={**row.data, **{name: other.data[name] for name in fields}})


def cluster_of(*parts: object) -> str:
    """A short name for a cluster that has no name of its own, from its content."""
    return hash_json([str(part) for part in parts])[:16]


@dataclass(frozen=True)
class Reader:
    """Reads a task's rows. `sources`: the values of `data_source` that belong to it; records without one do too."""

    task: str
    make: Callable[[Mapping[str, Any], str], Made]
    sources: tuple[str, ...] = ()

    def __call__(self, path: Path) -> Iterator[Row]:
        """Every row of a file, or of all files of a folder. Raises UsageError or DataError."""
        return self.rows(read_records(path), str(path))

    def rows(self, records: Iterable[Mapping[str, Any]], origin: str) -> Iterator[Row]:
        """Rows of unfolded records; `origin` names them in errors."""
        count = 0
        for number, record in enumerate(records, start=1):
            where = f"{origin}, record {number}"
            source = record.get("data_source")
            if self.sources and source is not None and source not in self.sources:
                raise DataError(
                    f"a row of {source!r}", where=where, fix=f"{self.task} reads {', '.join(self.sources)}"
                )
            with data_errors(where, fix=RECORD_FIX, what="a malformed record"):
                made = list(self.make(record, where))
            for cluster, data in made:
                yield row_of(self.task, str(count), cluster, data)
                count += 1

    def examples(self, records: Iterable[Mapping[str, Any]]) -> Callable[[], list[Row]]:
        """The rows of invented records, for `TaskSpec.examples`."""
        return lambda: list(self.rows(map(unfold, records), f"examples of {self.task}"))
