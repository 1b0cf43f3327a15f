"""Reading corpus files in bounded memory: .jsonl, .jsonl.gz, .jsonl.zst and .parquet.

A row has `data_source`, `messages: list<{role, content}>` (fallback: `extra_info.messages`), optionally `id`
(DESIGN 4). Memory does not grow with the file. Any process may read; nothing is written.

A row that cannot be used (not UTF-8, not JSON, wrong schema, no messages) is either an error that names file and
row, or counted and skipped (`on_bad_row`).
"""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Literal

from common.errors import DataError, UsageError
from data_tools import jsonl, parquet
from data_tools.columns import RowBatch
from data_tools.conversation import WHOLE, BadRow, ChatMessage, Conversation, RawRow, Span

__all__ = ["BadRow", "ChatMessage", "Conversation", "RawRow", "RowBatch", "Span", "find_files", "read_batches"]

OnBadRow = Literal["stop", "skip"]
SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet")


def find_files(pattern: str) -> list[Path]:
    """Files of a glob (`**` allowed) in sorted order, so that the corpus order does not depend on the machine."""
    # Path.glob takes no absolute pattern.
    names = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207
    found = [path for path in map(Path, names) if path.is_file()]
    if not found:
        raise UsageError("no file matches", where=pattern, fix="give an existing file or a glob that matches some")
    for path in found:
        if not path.name.endswith(SUFFIXES):
            raise UsageError("unknown file type", where=str(path), fix=f"corpora are {', '.join(SUFFIXES)} files")
    return found


def read_batches(path: Path, span: Span = WHOLE, *, on_bad_row: OnBadRow = "stop") -> Iterator[RowBatch]:
    """Batches of a file or a part of it. Raises DataError naming file and row, or leaves bad rows in `batch.bad`."""
    for batch in _reader(path).read_batches(path, span):
        if batch.bad and on_bad_row == "stop":
            raise bad_row_error(path, span, batch.bad[0])
        yield batch


def read_conversations(
    paths: Sequence[Path], *, default_source: str = "", on_bad_row: OnBadRow = "stop"
) -> Iterator[Conversation]:
    """All conversations of the files, in order."""
    for path in paths:
        for batch in read_batches(path, on_bad_row=on_bad_row):
            for row in batch.rows:
                yield Conversation(
                    row.source or default_source, tuple(row.messages), row.id or f"{path.name}:{row.number}"
                )


def bad_row_error(path: Path, span: Span, bad: BadRow) -> DataError:
    """The error for an unusable row, with its number in the whole file (counted only now: it costs a read)."""
    return DataError(
        bad.detail,
        where=f"{path}, row {_reader(path).rows_before(path, span) + bad.number} (counted from 0)",
        fix="correct the row, or set on_bad_row: skip to leave such rows out and count them",
    )


def _reader(path: Path) -> ModuleType:
    return parquet if path.name.endswith(".parquet") else jsonl
