"""JSONL files of conversations, plain or compressed (.gz, .zst), read block by block.

A plain file can be read in byte spans: a row belongs to the span in which its first byte lies, so spans that tile
a file read every row exactly once wherever they cut. A compressed file is one span.

A block becomes columns in one call of Arrow's reader. Only a block that holds anything unusual (a bad row, a blank
line, a key twice, messages in `extra_info`) is decoded again, line by line, by msgspec, which finds out what it is.
Arrow's answer, where it is taken, is the one that msgspec gives (tests/data_tools/test_rows.py).
"""

from __future__ import annotations

import gzip
import io
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.json
import zstandard
from numpy.typing import NDArray

from common.errors import DataError
from data_tools.arrow_rows import columns_of
from data_tools.columns import Columns, RowBatch
from data_tools.conversation import (
    BATCH_BYTES,
    MAX_ROW_BYTES,
    BadRow,
    ChatMessage,
    Span,
    UnusableRow,
)

_MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))


class _Line(msgspec.Struct, frozen=True, gc=False):
    messages: list[ChatMessage] | None = None
    data_source: str | None = None
    id: str | int | None = None
    extra_info: msgspec.Raw = msgspec.Raw()  # a union with None would refuse every object


class _ExtraInfo(msgspec.Struct, frozen=True, gc=False):
    messages: list[ChatMessage] | None = None


_line_decoder = msgspec.json.Decoder(_Line)
_decode_extra_info = msgspec.json.Decoder(_ExtraInfo | None).decode


@dataclass(frozen=True)
class _Block:
    """Whole lines. Of a line over MAX_ROW_BYTES only the beginning is kept."""

    position: int
    """Offset of the first byte in the (decompressed) file."""
    data: bytes


def read_batches(path: Path, span: Span, *, batch_bytes: int = BATCH_BYTES) -> Iterator[RowBatch]:
    """Batches of the rows whose first byte lies in the span. Raises DataError when the file itself is unreadable."""
    number = consumed = 0
    decoder = _BlockDecoder()
    with _open(path) as (stream, file):
        for block in _blocks(path, stream, span, batch_bytes):
            # Progress in compressed input is measured in compressed bytes: the position of the file below the stream.
            total = file.tell() if stream is not file else consumed + len(block.data)
            batch = decoder.decode(number, block, total - consumed)
            number, consumed = number + len(batch.columns) + len(batch.bad), total
            yield batch


def rows_before(path: Path, span: Span) -> int:
    """Number of rows (lines that are not blank) that start before the span."""
    count = position = 0
    with path.open("rb") as f:
        while position < span.start and (line := f.readline(BATCH_BYTES)):
            position += len(line)
            blank = line.isspace()
            while not line.endswith(b"\n") and (line := f.readline(BATCH_BYTES)):
                position += len(line)
                blank = blank and line.isspace()
            count += not blank
    return count


def is_compressed(path: Path) -> bool:
    """Compressed files cannot be read from the middle."""
    return path.name.endswith((".gz", ".zst"))


class _BlockDecoder:
    """Blocks to rows. It remembers what the rows of the file look like."""

    def __init__(self) -> None:
        self._shapes = [_Shape(id_type, others) for others in (False, True) for id_type in (pa.string(), pa.int64())]

    def decode(self, number: int, block: _Block, bytes_read: int) -> RowBatch:
        """The rows of a block; `number` is that of its first row."""
        found = self.at_once(block.data)
        if found is None:
            return _decode_one_by_one(number, block, bytes_read)
        columns, ids, starts = found
        numbers = np.arange(number, number + len(columns))
        return RowBatch(columns, ids.to_pylist, numbers, lambda: block.position + starts, [], bytes_read)

    def at_once(self, data: bytes) -> tuple[Columns, pa.Array, NDArray[np.int64]] | None:
        """Rows, their ids and where they begin, or None where a line is anything but a row with messages."""
        starts = _starts_of_objects(data) if len(data) <= MAX_ROW_BYTES else None
        if starts is None:
            return None
        for shape in self._shapes:
            try:
                batch = shape.parse(data)
            except pa.ArrowException:
                continue
            self._shapes = sorted(self._shapes, key=lambda other: other != shape)
            # No line is without a value, so two in one line are one value more than there are lines.
            if batch.num_rows != len(starts) or (shape.others and _may_hold_nan(data)):
                return None
            columns = _usable(batch)
            return None if columns is None else (columns, batch.column("id"), starts)
        return None


@dataclass(frozen=True)
class _Shape:
    """What a column of Arrow needs to know beforehand."""

    id_type: pa.DataType
    others: bool
    """Some objects have other keys, whose values nobody wants."""

    def parse(self, data: bytes) -> pa.RecordBatch:
        """Columns messages, data_source and id of the values in `data`. Raises ArrowException."""
        schema = pa.schema([("messages", _MESSAGES), ("data_source", pa.string()), ("id", self.id_type)])
        table = pa.json.read_json(
            pa.BufferReader(data),
            pa.json.ReadOptions(use_threads=False, block_size=len(data) + 1),
            pa.json.ParseOptions(
                explicit_schema=schema, unexpected_field_behavior="ignore" if self.others else "error"
            ),
        )
        (batch,) = table.combine_chunks().to_batches()
        return batch


def _starts_of_objects(data: bytes) -> NDArray[np.int64] | None:
    """Where each line begins, or None where one does not begin and end with a brace.

    A line that does holds whole values, which the parser does not see to: `}` and `{` never meet inside a value.
    """
    text = np.frombuffer(data, np.uint8)
    text = text[: len(text) - data.endswith(b"\n")]
    newlines = np.flatnonzero(text == ord("\n"))
    starts = np.concatenate([[0], newlines + 1])
    stops = np.concatenate([newlines, [len(text)]])
    # The parser takes a zero byte for the end.
    if (starts == stops).any() or b"\0" in data:
        return None
    return starts if (text[starts] == ord("{")).all() and (text[stops - 1] == ord("}")).all() else None


def _may_hold_nan(data: bytes) -> bool:
    """Whether there may be NaN, Inf or Infinity outside of strings: the parser takes them, JSON has none."""
    for word in (b"NaN", b"Inf"):
        at = data.find(word)
        while at >= 0:
            after = data[at + len(word) : at + len(word) + 5]
            if after[:1] in b" \t\r,]}" or after == b"inity":
                before = data[max(0, at - 32) : at].rstrip(b" \t\r-")
                if not before or before.endswith((b":", b",", b"[")):
                    return True
            at = data.find(word, at + 1)
    return False


def _usable(batch: pa.RecordBatch) -> Columns | None:
    try:
        batch.column("id").validate(full=True)
        return columns_of(batch.column("messages"), batch.column("data_source"))
    except (pa.ArrowInvalid, UnicodeDecodeError):
        return None


def _decode_one_by_one(number: int, block: _Block, bytes_read: int) -> RowBatch:
    """Each line by itself. Blank lines are no rows."""
    lines: list[_Line] = []
    numbers: list[int] = []
    starts: list[int] = []
    bad: list[BadRow] = []
    start = block.position
    for line in io.BytesIO(block.data):
        if not line.isspace():
            try:
                lines.append(_parse(line))
                numbers.append(number)
                starts.append(start)
            except UnusableRow as e:
                bad.append(BadRow(number, e.reason, e.detail))
            number += 1
        start += len(line)
    columns = Columns.of(
        [cast(list[ChatMessage], line.messages) for line in lines], [line.data_source or "" for line in lines]
    )
    return RowBatch(
        columns,
        lambda: [line.id for line in lines],
        np.array(numbers, np.int64),
        lambda: np.array(starts, np.int64),
        bad,
        bytes_read,
    )


def _parse(line: bytes) -> _Line:
    if len(line) > MAX_ROW_BYTES:
        raise UnusableRow("too_large", f"row longer than {MAX_ROW_BYTES >> 20} MiB")
    try:
        row = _line_decoder.decode(line)
        messages = row.messages
        if messages is None and bytes(row.extra_info):
            extra = _decode_extra_info(row.extra_info)
            messages = extra.messages if extra else None
    except msgspec.ValidationError as e:
        raise UnusableRow("schema", f"not a conversation row: {e}") from None
    except msgspec.DecodeError as e:
        raise UnusableRow("json", f"not valid JSON: {e}") from None
    except RecursionError:
        return _parse_deep(line)
    except UnicodeDecodeError as e:
        raise UnusableRow("utf8", f"not valid UTF-8: {e.reason}") from None
    if not messages:
        raise UnusableRow("empty", "no messages")
    return msgspec.structs.replace(row, messages=messages)


def _parse_deep(line: bytes) -> _Line:
    """A row with something nested too deep for the decoder; the parser of blocks does not recurse."""
    found = _BlockDecoder().at_once(line)
    if found is None:
        raise UnusableRow("json", "nested too deep")
    columns, ids, _ = found
    return _Line(columns.messages(0), columns.sources[0], ids[0].as_py())


@contextmanager
def _open(path: Path) -> Iterator[tuple[BinaryIO, BinaryIO]]:
    """The decompressed stream and the file below it (the same for a plain file)."""
    with path.open("rb", buffering=1 << 20) as file:
        if path.name.endswith(".gz"):
            yield cast(BinaryIO, gzip.GzipFile(fileobj=file)), file
        elif path.name.endswith(".zst"):
            reader = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True, closefd=False)
            yield cast(BinaryIO, io.BufferedReader(cast(io.RawIOBase, reader), 1 << 20)), file
        else:
            yield file, file


def _blocks(path: Path, stream: BinaryIO, span: Span, size: int) -> Iterator[_Block]:
    """Consecutive blocks of about `size` bytes with the lines that start in the span."""
    position = span.start
    if position:
        stream.seek(position - 1, os.SEEK_SET)
        position += _skip_to_newline(stream) - 1
    try:
        while span.stop is None or position < span.stop:
            data = stream.read(size if span.stop is None else min(size, span.stop - position))
            if not data:
                return
            skipped = 0
            if not data.endswith(b"\n"):
                begun = len(data) - (data.rfind(b"\n") + 1)
                rest = stream.readline(max(1, MAX_ROW_BYTES + 1 - begun))
                data += rest
                if begun + len(rest) > MAX_ROW_BYTES and not rest.endswith(b"\n"):
                    skipped = _skip_to_newline(stream)
            yield _Block(position, data)
            position += len(data) + skipped
    except (EOFError, OSError, zlib.error, zstandard.ZstdError) as e:
        raise DataError(f"damaged compressed file: {e}", where=str(path), fix="fetch or compress it again") from e


def _skip_to_newline(stream: BinaryIO) -> int:
    """Bytes up to and with the next newline (or the end of the file)."""
    skipped = 0
    while block := stream.readline(BATCH_BYTES):
        skipped += len(block)
        if block.endswith(b"\n"):
            break
    return skipped
