"""Parquet files of conversations: column `messages` list<struct{role, content}>, or `extra_info.messages`.

Read in spans of row groups, a few thousand rows at a time. The structs are not converted one by one: the list is
flattened and its child arrays are taken whole. Only a batch with an unusable row, or with messages in `extra_info`,
is looked at row by row.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from common.errors import SHAPE_ERRORS, DataError, data_errors
from data_tools.arrow_rows import columns_of, labels_of, struct_fields
from data_tools.columns import Columns, RowBatch
from data_tools.conversation import BATCH_BYTES, ROLES, BadRow, ChatMessage, Span

MAX_ROWS_PER_BATCH = 8192
FETCH = "fetch or write it again"


def read_batches(path: Path, span: Span, *, batch_bytes: int = BATCH_BYTES) -> Iterator[RowBatch]:
    """Batches of the row groups of the span. Raises DataError when the file or its schema is unusable."""
    file = open_file(path)
    with data_errors(str(path), fix=FETCH, what="a schema that cannot be read"):
        columns = _columns(path, file.schema_arrow)
    groups = range(span.start, file.num_row_groups if span.stop is None else span.stop)
    number, before = 0, rows_before(path, span)
    for group in groups:
        metadata = file.metadata.row_group(group)
        if not metadata.num_rows:
            continue
        row_bytes = max(1, metadata.total_byte_size // metadata.num_rows)
        batch_rows = int(np.clip(batch_bytes // row_bytes, 1, MAX_ROWS_PER_BATCH))
        try:
            for batch in file.iter_batches(batch_rows, row_groups=[group], columns=columns, use_threads=False):
                yield _convert(batch, number, before, row_bytes * batch.num_rows)
                number += batch.num_rows
        except (pa.ArrowException, *SHAPE_ERRORS) as e:
            raise DataError(f"damaged parquet row group {group}: {e}", where=str(path), fix="fetch it again") from e


def rows_before(path: Path, span: Span) -> int:
    """Number of rows in the row groups before the span."""
    metadata = open_file(path).metadata
    return sum(metadata.row_group(i).num_rows for i in range(span.start))


def open_file(path: Path) -> pq.ParquetFile:
    """The file, or a DataError."""
    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, *SHAPE_ERRORS) as e:
        raise DataError(f"not a readable parquet file: {e}", where=str(path), fix="fetch or write it again") from e


def _columns(path: Path, schema: pa.Schema) -> list[str]:
    columns = [name for name in ("data_source", "id") if name in schema.names]
    if "messages" in schema.names:
        columns.append("messages")
    extra = schema.field("extra_info").type if "extra_info" in schema.names else None
    if extra is not None and pa.types.is_struct(extra) and extra.get_field_index("messages") >= 0:
        columns.append("extra_info.messages")
    if not {"messages", "extra_info.messages"} & set(columns):
        raise DataError(
            f"no column `messages` or `extra_info.messages`; columns are {', '.join(schema.names)}",
            where=str(path),
            fix="give files with messages: list<struct{role, content}>",
        )
    return columns


def _convert(batch: pa.RecordBatch, first: int, before: int, bytes_read: int) -> RowBatch:
    sources, ids = _strings(batch, "data_source"), _strings(batch, "id")
    ids.validate(full=True)  # what is not UTF-8 is found now, not when somebody asks
    rows = np.arange(batch.num_rows)
    bad: list[BadRow] = []
    columns = columns_of(batch.column("messages"), sources) if "messages" in batch.schema.names else None
    if columns is None:
        messages = _messages(batch)
        bad = [BadRow(first + i, m.reason, m.detail) for i, m in enumerate(messages) if isinstance(m, BadRow)]
        rows = np.array([i for i, m in enumerate(messages) if not isinstance(m, BadRow)], np.int64)
        columns = Columns.of([m for m in messages if not isinstance(m, BadRow)], labels_of(sources).take(rows))
    numbers = first + rows
    return RowBatch(
        columns, lambda: ids.take(pa.array(rows)).to_pylist(), numbers, lambda: before + numbers, bad, bytes_read
    )


def _strings(batch: pa.RecordBatch, name: str) -> pa.StringArray:
    """A column as strings; nulls where the file has none."""
    if name not in batch.schema.names:
        return pa.nulls(batch.num_rows, pa.string())
    return batch.column(name).cast(pa.string())


def _messages(batch: pa.RecordBatch) -> list[list[ChatMessage] | BadRow]:
    """Messages of each row, `messages` first and `extra_info.messages` where that is null."""
    names = batch.schema.names
    arrays = [batch.column(names.index("messages"))] if "messages" in names else []
    if "extra_info" in names:
        arrays.append(batch.column(names.index("extra_info")).field("messages"))
    out: list[list[ChatMessage] | BadRow] = [_EMPTY] * batch.num_rows
    for array in reversed(arrays):
        for i, value in enumerate(_lists(array)):
            if value is not None:
                out[i] = value
    return out


_EMPTY = BadRow(0, "empty", "no messages")


def _lists(array: pa.Array) -> Iterator[list[ChatMessage] | BadRow | None]:
    """One list<struct{role, content}> column: messages, why they are unusable, or None for null and empty lists."""
    if not {"role", "content"} <= struct_fields(array.type):
        detail = f"messages have type {array.type}, not list<struct{{role, content}}>"
        yield from [BadRow(0, "schema", detail)] * len(array)
        return
    structs = array.flatten()
    lengths = np.nan_to_num(array.value_lengths().to_numpy(zero_copy_only=False)).astype(np.int64)
    stops = np.cumsum(lengths)
    try:
        roles = structs.field("role").to_pylist()
        contents = structs.field("content").to_pylist()
    except UnicodeDecodeError as e:
        # Parquet strings are UTF-8 by contract: which row broke it is found one by one.
        roles = contents = None
        detail = f"not valid UTF-8: {e.reason}"
    for start, stop in zip((stops - lengths).tolist(), stops.tolist(), strict=True):
        if start == stop:
            yield None
        elif roles is None:
            yield _one_row(structs.slice(start, stop - start), detail)
        else:
            yield _build(roles[start:stop], contents[start:stop])


def _one_row(structs: pa.StructArray, detail: str) -> list[ChatMessage] | BadRow:
    try:
        return _build(structs.field("role").to_pylist(), structs.field("content").to_pylist())
    except UnicodeDecodeError:
        return BadRow(0, "utf8", detail)


def _build(roles: list[str | None], contents: list[str | None]) -> list[ChatMessage] | BadRow:
    messages = []
    for role, content in zip(roles, contents, strict=True):
        if role not in ROLES:
            return BadRow(0, "schema", f"unknown role {role!r}; roles are {', '.join(ROLES)}")
        if not isinstance(content, str):
            return BadRow(0, "schema", f"content is {type(content).__name__}, not a string")
        messages.append(ChatMessage(role, content))
    return messages
