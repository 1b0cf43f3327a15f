"""Files that are hashed while they are written: the bytes are in the cache then and need not be read again."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

BUFFER_BYTES = 1 << 20


class HashedFile:
    """A new file, open for writing. The writer closes it; an unfinished one is its directory's concern."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb", buffering=0)
        self._digest = xxhash.xxh3_128()
        self._size = 0

    def write(self, data: bytes | memoryview) -> None:
        """Append the bytes. OSError when the disk is full."""
        view = memoryview(data)
        for start in range(0, len(view), BUFFER_BYTES):
            piece = view[start : start + BUFFER_BYTES]
            self._digest.update(piece)
            self._size += len(piece)
            while piece:
                piece = piece[self._file.write(piece) :]

    def close(self, *, durable: bool = True) -> tuple[int, str]:
        """Size and xxh3-128 (as common.files.hash_file) of the file. durable: it is on disk then."""
        if durable:
            os.fsync(self._file.fileno())
        self._file.close()
        return self._size, self._digest.hexdigest()


def concatenate(paths: Iterable[Path], target: Path) -> tuple[int, str]:
    """Write the files one after another; size and hash of the result. They are mapped, not read: one copy less."""
    out = HashedFile(target)
    for path in paths:
        if path.stat().st_size:
            out.write(np.memmap(path, np.uint8, "r").data)
    return out.close()


def save_array(path: Path, array: NDArray[Any], *, durable: bool = True) -> tuple[int, str]:
    """Write a .npy file; size and hash."""
    out, header = HashedFile(path), io.BytesIO()
    np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(array))
    out.write(header.getvalue())
    out.write(np.ascontiguousarray(array).view(np.uint8).data)
    return out.close(durable=durable)
