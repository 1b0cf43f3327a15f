"""JSONL files of conversations, plain or compressed (.gz, .zst), read block by block.

A plain file can be read in byte spans: a row belongs to the span in which its first byte lies, so spans that tile
a file read every row exactly once wherever they cut. A compressed file is one span.

A block is decoded in one call. Only a block that holds anything unusual (a bad row, a blank line, messages in
`extra_info`) is decoded again line by line, which finds out what it is.
"""

from __future__ import annotations

import gzip
import io
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import BinaryIO, cast

import msgspec
import numpy as np
import zstandard
from numpy.typing import NDArray

from common.errors import DataError
from data_tools.columns import Columns, RowBatch
from data_tools.conversation import (
    BATCH_BYTES,
    MAX_ROW_BYTES,
    ROLES,
    BadRow,
    ChatMessage,
    Span,
    UnusableRow,
)
from data_tools.texts import Texts

_BLANK_STARTS = (b"\n\n", b"\n\r", b"\n ", b"\n\t")
"""A line that begins with white space: JSON has no raw line ends inside its strings."""
_ROLE_CODE = {role: code for code, role in enumerate(ROLES)}.__getitem__


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
    with _open(path) as (stream, file):
        for block in _blocks(path, stream, span, batch_bytes):
            # Progress in compressed input is measured in compressed bytes: the position of the file below the stream.
            total = file.tell() if stream is not file else consumed + len(block.data)
            batch = _decode_block(number, block, total - consumed)
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


def _decode_block(number: int, block: _Block, bytes_read: int) -> RowBatch:
    """The rows of a block; `number` is that of its first row."""
    bad: list[BadRow] = []
    lines = _decode_at_once(block.data)
    if lines is None:
        lines, offsets, bad = _decode_one_by_one(number, block.data)
        starts = np.array(offsets, np.int64)
        taken = {b.number for b in bad}
        numbers = np.array([n for n in range(number, number + len(lines) + len(bad)) if n not in taken], np.int64)
    else:
        starts = None
        numbers = np.arange(number, number + len(lines))

    def locate() -> NDArray[np.int64]:
        return block.position + (_line_starts(block.data) if starts is None else starts)

    return RowBatch(_columns(lines), [line.id for line in lines], numbers, locate, bad, bytes_read)


def _columns(lines: list[_Line]) -> Columns:
    rows = [cast(list[ChatMessage], line.messages) for line in lines]
    messages = list(chain.from_iterable(rows))
    return Columns(
        Texts.of(m.content for m in messages),
        np.array([_ROLE_CODE(m.role) for m in messages], np.uint8),
        np.array([len(row) for row in rows], np.int64),
        [line.data_source or "" for line in lines],
    )


def _decode_at_once(data: bytes) -> list[_Line] | None:
    """One row per line, or None when a line is anything but a row with messages."""
    # A blank line beside two values in one line would hide both from the count below.
    if len(data) > MAX_ROW_BYTES or data[:1].isspace() or any(mark in data for mark in _BLANK_STARTS):
        return None
    try:
        lines = _line_decoder.decode_lines(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    # The decoder does not care about line ends: it skips blank lines and takes two values from one line.
    expected = int(np.count_nonzero(np.frombuffer(data, np.uint8) == ord("\n"))) + (not data.endswith(b"\n"))
    if len(lines) != expected or not all(line.messages for line in lines):
        return None
    return lines


def _line_starts(data: bytes) -> NDArray[np.int64]:
    newlines = np.flatnonzero(np.frombuffer(data, np.uint8) == ord("\n"))
    starts = np.concatenate([[0], newlines + 1])
    return starts[starts < len(data)]


def _decode_one_by_one(number: int, data: bytes) -> tuple[list[_Line], list[int], list[BadRow]]:
    """Usable rows, the offset of each in the block, and the others. Blank lines are no rows."""
    lines: list[_Line] = []
    offsets: list[int] = []
    bad: list[BadRow] = []
    offset = 0
    for line in io.BytesIO(data):
        if not line.isspace():
            try:
                lines.append(_parse(line))
                offsets.append(offset)
            except UnusableRow as e:
                bad.append(BadRow(number, e.reason, e.detail))
            number += 1
        offset += len(line)
    return lines, offsets, bad


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
        raise UnusableRow("json", "nested too deep") from None
    except UnicodeDecodeError as e:
        raise UnusableRow("utf8", f"not valid UTF-8: {e.reason}") from None
    if not messages:
        raise UnusableRow("empty", "no messages")
    return msgspec.structs.replace(row, messages=messages)


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
