"""Few different strings, each many times, such as the sources of rows: no object per place."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Labels(Sequence[str]):
    """An immutable sequence of strings: place i holds `names[codes[i]]`."""

    names: Sequence[str]
    codes: NDArray[np.int32]

    @classmethod
    def of(cls, strings: Iterable[str]) -> Labels:
        """From strings; the same object where they are labels already."""
        if isinstance(strings, Labels):
            return strings
        numbers: dict[str, int] = {}
        codes = np.array([numbers.setdefault(s, len(numbers)) for s in strings], np.int32)
        return cls(list(numbers), codes)

    @cached_property
    def used(self) -> dict[str, int]:
        """The names that stand anywhere, with their codes."""
        present = np.flatnonzero(np.bincount(self.codes, minlength=len(self.names)))
        return {self.names[code]: code for code in present.tolist()}

    def lookup(self, value: Callable[[str], Any], dtype: type[np.generic]) -> NDArray[Any]:
        """value(string) of every place; it is called once per different string."""
        table = np.zeros(len(self.names), dtype)
        for name, code in self.used.items():
            table[code] = value(name)
        return table[self.codes]

    def filled(self, default: str) -> Labels:
        """`default` in the place of empty strings."""
        return Labels.of([name or default for name in self.names]).take(self.codes) if "" in self.used else self

    def take(self, places: NDArray[np.integer[Any]]) -> Labels:
        """The strings of these places, in this order."""
        return Labels(self.names, self.codes[places])

    def __len__(self) -> int:
        return len(self.codes)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Labels: ...
    def __getitem__(self, index: int | slice) -> str | Labels:
        if isinstance(index, slice):
            return Labels(self.names, self.codes[index])
        return self.names[self.codes[index]]
