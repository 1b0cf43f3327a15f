"""Megatron's IndexedDataset file pair: NAME.bin (items back to back) and NAME.idx (lengths, pointers, documents).

Layout of .idx, little-endian (megatron.core.datasets.indexed_dataset): magic, u64 version 1, u8 dtype code,
u64 sequence count N, u64 document index count D, N x i32 lengths in items, N x i64 byte pointers, D x i64 document
indices (0 ... N). Here one sequence is one document, so D = N + 1.

The reader maps the files into memory and, unlike the stock one, checks every size on opening: a truncated .bin is an
error at once, not at some later step. No torch, no megatron.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from common.errors import DataError

MAGIC = b"MMIDIDX\x00\x00"
VERSION = 1
CHECKED_AT_ONCE = 1 << 20
_HEADER = struct.Struct("<9sQBQQ")
DTYPES: dict[int, np.dtype[Any]] = {
    1: np.dtype(np.uint8),
    2: np.dtype(np.int8),
    3: np.dtype(np.int16),
    4: np.dtype(np.int32),
    5: np.dtype(np.int64),
    6: np.dtype(np.float64),
    7: np.dtype(np.float32),
    8: np.dtype(np.uint16),
}
CODES = {dtype: code for code, dtype in DTYPES.items()}
UINT16_VOCAB_LIMIT = 65500
"""Vocabularies below it are stored as uint16 (DType.optimal_dtype of Megatron)."""


def token_dtype(vocab_size: int) -> np.dtype[Any]:
    """The token type that Megatron would choose for this vocabulary."""
    return np.dtype(np.uint16 if vocab_size < UINT16_VOCAB_LIMIT else np.int32)


def add_suffix(prefix: Path, suffix: str) -> Path:
    """PREFIX + suffix; unlike Path.with_suffix it keeps dots in the name."""
    return prefix.with_name(prefix.name + suffix)


def as_bytes(array: NDArray[Any]) -> memoryview:
    """The bytes of an array, without a copy where it is contiguous."""
    return np.ascontiguousarray(array).view(np.uint8).data


def write_index(path: Path, lengths: NDArray[np.int32], dtype: np.dtype[Any]) -> None:
    """Write a whole .idx and fsync it. `lengths`: items per document, int32[N]."""
    pointers = np.zeros(len(lengths), np.int64)
    np.cumsum(lengths[:-1], dtype=np.int64, out=pointers[1:])
    pointers *= dtype.itemsize
    with path.open("wb") as f:
        f.write(_HEADER.pack(MAGIC, VERSION, CODES[dtype], len(lengths), len(lengths) + 1))
        _write_array(f, lengths.astype("<i4", copy=False))
        _write_array(f, pointers.astype("<i8", copy=False))
        _write_array(f, np.arange(len(lengths) + 1, dtype="<i8"))
        f.flush()
        os.fsync(f.fileno())


def _write_array(f: BinaryIO, array: NDArray[Any]) -> None:
    f.write(as_bytes(array))


@dataclass(frozen=True)
class IndexedReader:
    """A file pair opened for reading. Items are mapped, not read; `len` is the number of sequences."""

    prefix: Path
    dtype: np.dtype[Any]
    lengths: NDArray[np.int32]
    """Items per sequence, int32[N]."""
    pointers: NDArray[np.int64]
    """Byte offset of each sequence in .bin, int64[N]."""
    items: NDArray[Any]
    """All of .bin, memory-mapped."""

    @classmethod
    def open(cls, prefix: Path) -> IndexedReader:
        """Map PREFIX.idx and PREFIX.bin. Raises DataError when either is missing, damaged or of the wrong size."""
        idx, data = add_suffix(prefix, ".idx"), add_suffix(prefix, ".bin")
        for path in (idx, data):
            if not path.is_file():
                raise DataError("no such file", where=str(path), fix="run `osim data prepare`, or correct the prefix")
        dtype, lengths, pointers = _read_index(idx)
        expected = int(pointers[-1]) + int(lengths[-1]) * dtype.itemsize if len(lengths) else 0
        actual = data.stat().st_size
        if actual != expected:
            raise DataError(
                f"{actual} bytes, but its index says {expected}: the file is truncated or not of this index",
                where=str(data),
                fix="run `osim data prepare` again",
            )
        items = np.memmap(data, dtype, "r") if expected else np.zeros(0, dtype)
        return cls(prefix, dtype, lengths, pointers, items)

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, i: int) -> NDArray[Any]:
        """Items of sequence i (a view of the mapping)."""
        start = int(self.pointers[i]) // self.dtype.itemsize
        return self.items[start : start + int(self.lengths[i])]

    @property
    def num_items(self) -> int:
        return len(self.items)


def _back_to_back(lengths: NDArray[np.int32], pointers: NDArray[np.int64], itemsize: int) -> bool:
    """Whether each sequence begins where the one before it ends."""
    expected = 0
    for start in range(0, len(lengths), CHECKED_AT_ONCE):
        part = np.asarray(lengths[start : start + CHECKED_AT_ONCE], np.int64) * itemsize
        begins = expected + np.cumsum(part) - part
        if part.min() < 0 or not np.array_equal(begins, pointers[start : start + CHECKED_AT_ONCE]):
            return False
        expected = int(begins[-1] + part[-1])
    return True


def _read_index(path: Path) -> tuple[np.dtype[Any], NDArray[np.int32], NDArray[np.int64]]:
    """Type, lengths and pointers of an .idx whose size and pointers are consistent."""
    damaged = DataError("not a valid Megatron index", where=str(path), fix="run `osim data prepare` again")
    size = path.stat().st_size
    with path.open("rb") as f:
        header = f.read(_HEADER.size)
    if len(header) != _HEADER.size:
        raise damaged
    magic, version, code, sequences, documents = _HEADER.unpack(header)
    if magic != MAGIC or version != VERSION or code not in DTYPES:
        raise damaged
    if size < _HEADER.size + 12 * sequences + 8 * documents:
        raise damaged
    if not sequences:
        return DTYPES[code], np.zeros(0, np.int32), np.zeros(0, np.int64)
    lengths = np.memmap(path, "<i4", "r", offset=_HEADER.size, shape=(sequences,))
    pointers = np.memmap(path, "<i8", "r", offset=_HEADER.size + 4 * sequences, shape=(sequences,))
    if not _back_to_back(lengths, pointers, DTYPES[code].itemsize):
        raise damaged
    return DTYPES[code], lengths, pointers
