"""The records of a shop or an airline as an immutable value: a shared base and the changes made to it. Pure.

A tool never changes a record; it puts a new one into a new Database. Comparing two of the same base compares changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Record = Mapping[str, Any]
Tables = Mapping[str, Mapping[str, Any]]


class ToolError(Exception):
    """What a tool answers when it cannot do what was asked; nothing was changed."""


@dataclass(frozen=True)
class Database:
    """Tables of records by id."""

    base: Tables
    changes: Mapping[tuple[str, str], Record] = field(default_factory=dict)

    def get(self, table: str, key: str) -> Record:
        """One record. Raises ToolError."""
        found = self.changes.get((table, key), self.base.get(table, {}).get(key))
        if found is None:
            raise ToolError(f"{table.removesuffix('s')} not found")
        record: Record = found
        return record

    def table(self, table: str) -> dict[str, Record]:
        """All records of a table."""
        changed = {key: record for (name, key), record in self.changes.items() if name == table}
        return {**self.base.get(table, {}), **changed}

    def put(self, table: str, key: str, record: Record) -> Database:
        """The database with one record replaced or added."""
        return Database(self.base, {**self.changes, (table, key): record})

    def differences(self) -> dict[tuple[str, str], Record]:
        """Records that are not as in the base."""
        return {
            (table, key): record
            for (table, key), record in self.changes.items()
            if self.base.get(table, {}).get(key) != record
        }
