"""JSONL files of conversations, plain or compressed (.gz, .zst), read line by line.

A plain file can be read in byte spans: a row belongs to the span in which its first byte lies, so spans that tile
a file read every row exactly once wherever they cut. A compressed file is one span.
"""

from __future__ import annotations

import gzip
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

import msgspec
import zstandard

from common.errors import DataError
from data_tools.conversation import (
    BATCH_BYTES,
    MAX_ROW_BYTES,
    BadRow,
    ChatMessage,
    RawRow,
    RowBatch,
    Span,
    UnusableRow,
)


class _Line(msgspec.Struct, frozen=True, gc=False):
    messages: list[ChatMessage] | None = None
    data_source: str | None = None
    id: str | int | None = None
    extra_info: msgspec.Raw = msgspec.Raw()  # a union with None would refuse every object


class _ExtraInfo(msgspec.Struct, frozen=True, gc=False):
    messages: list[ChatMessage] | None = None


_decode_line = msgspec.json.Decoder(_Line).decode
_decode_extra_info = msgspec.json.Decoder(_ExtraInfo | None).decode


def read_batches(path: Path, span: Span, *, batch_bytes: int = BATCH_BYTES) -> Iterator[RowBatch]:
    """Batches of the rows whose first byte lies in the span. Raises DataError when the file itself is unreadable."""
    rows: list[RawRow] = []
    bad: list[BadRow] = []
    size = number = reported = 0
    with _open(path) as (stream, file):
        for position, line in _lines(path, stream, span):
            size += len(line)
            try:
                if not line.isspace():
                    rows.append(_parse(number, position, line))
            except UnusableRow as e:
                bad.append(BadRow(number, e.reason, e.detail))
            number += 1
            if size >= batch_bytes:
                # Compressed input is measured in compressed bytes: the position of the file below the stream.
                consumed = size if stream is file else file.tell() - reported
                reported += consumed
                yield RowBatch(rows, bad, consumed)
                rows, bad, size = [], [], 0
        if size:
            yield RowBatch(rows, bad, size if stream is file else file.tell() - reported)


def rows_before(path: Path, span: Span) -> int:
    """Number of lines that start before the span."""
    if not span.start:
        return 0
    count, remaining = 0, span.start
    with path.open("rb") as f:
        while remaining and (block := f.read(min(BATCH_BYTES, remaining))):
            count += block.count(b"\n")
            remaining -= len(block)
            last = block[-1:]
    # A line that the cut goes through started before it.
    return count + (last != b"\n")


def is_compressed(path: Path) -> bool:
    """Compressed files cannot be read from the middle."""
    return path.name.endswith((".gz", ".zst"))


def _parse(number: int, position: int, line: bytes) -> RawRow:
    if len(line) > MAX_ROW_BYTES:
        raise UnusableRow("too_large", f"row longer than {MAX_ROW_BYTES >> 20} MiB")
    try:
        row = _decode_line(line)
        messages = row.messages
        if messages is None and bytes(row.extra_info):
            extra = _decode_extra_info(row.extra_info)
            messages = extra.messages if extra else None
    except msgspec.ValidationError as e:
        raise UnusableRow("schema", f"not a conversation row: {e}") from None
    except msgspec.DecodeError as e:
        raise UnusableRow("json", f"not valid JSON: {e}") from None
    except UnicodeDecodeError as e:
        raise UnusableRow("utf8", f"not valid UTF-8: {e.reason}") from None
    if not messages:
        raise UnusableRow("empty", "no messages")
    return RawRow(number, position, messages, row.data_source or "", "" if row.id is None else str(row.id))


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


def _lines(path: Path, stream: BinaryIO, span: Span) -> Iterator[tuple[int, bytes]]:
    """Byte offset and content of each line of the span; of one over MAX_ROW_BYTES only the beginning is kept."""
    position = span.start
    if position:
        stream.seek(position - 1, os.SEEK_SET)
        position += _skip_to_newline(stream) - 1
    try:
        while span.stop is None or position < span.stop:
            line = stream.readline(MAX_ROW_BYTES + 1)
            if not line:
                return
            start = position
            position += len(line)
            if len(line) > MAX_ROW_BYTES and not line.endswith(b"\n"):
                position += _skip_to_newline(stream)
            yield start, line
    except (EOFError, zstandard.ZstdError, gzip.BadGzipFile) as e:
        raise DataError(f"damaged compressed file: {e}", where=str(path), fix="fetch or compress it again") from e


def _skip_to_newline(stream: BinaryIO) -> int:
    """Bytes up to and with the next newline (or the end of the file)."""
    skipped = 0
    while block := stream.readline(BATCH_BYTES):
        skipped += len(block)
        if block.endswith(b"\n"):
            break
    return skipped
