"""Many strings as one UTF-8 buffer and offsets, as files hold them and tokenizers want them: no object per string."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, cast, overload

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


class Texts(Sequence[str]):
    """An immutable sequence of strings. It iterates over str objects, made for the occasion."""

    def __init__(self, array: pa.StringArray | pa.LargeStringArray) -> None:
        """`array`: valid UTF-8 and no nulls."""
        # 64-bit offsets: copies of long rows may pass 2 GiB.
        self._array = array.cast(pa.large_string())

    @classmethod
    def of(cls, strings: Iterable[str]) -> Texts:
        """From strings; the same object where they are one already."""
        return strings if isinstance(strings, Texts) else cls(pa.array(list(strings), pa.large_string()))

    @property
    def offsets(self) -> NDArray[np.int64]:
        """int64[N + 1], where each string starts in `data`."""
        return self._buffer(1, np.int64)[self._array.offset : self._array.offset + len(self) + 1]

    @property
    def data(self) -> NDArray[np.uint8]:
        """uint8[bytes], the UTF-8 of all strings (of others too)."""
        return self._buffer(2, np.uint8)

    def _buffer(self, index: int, dtype: type[np.int64 | np.uint8]) -> NDArray[Any]:
        buffer = self._array.buffers()[index]
        return np.zeros(1, dtype) if buffer is None or not buffer.size else np.frombuffer(buffer, dtype)

    def take(self, indices: NDArray[np.int64]) -> Texts:
        """These strings, in this order; one may be taken more than once."""
        return Texts(self._array.take(pa.array(indices)))

    def __len__(self) -> int:
        return len(self._array)

    def __iter__(self) -> Iterator[str]:
        return iter(cast(list[str], self._array.to_numpy(zero_copy_only=False).tolist()))

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Texts: ...
    def __getitem__(self, index: int | slice) -> str | Texts:
        if isinstance(index, slice):
            return self.take(np.arange(len(self))[index])
        return cast(str, self._array[index].as_py())
