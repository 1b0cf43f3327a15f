"""Units of work: fixed parts of the input, numbered before anything starts, so that results do not depend on workers.

A unit is about `unit_mb` of one file: a byte span of a plain JSONL file, row groups of a parquet file, or a whole
compressed file. A finished unit is one directory that appeared by one rename, with its record inside: what exists is
complete, what a killed worker left is invisible. It is not forced to disk: who resumes compares sizes and hashes, so
that a unit damaged by a power cut is made again, and a finished run deletes units that never had to be written out.

    WORK/units/00000/{tokens.bin, mask.bin, lengths.npy, sources.npy, record.json}
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.config import Config, validate
from common.errors import OsimError
from common.files import hash_file, read_sealed_json
from data_tools import jsonl, parquet
from data_tools.conversation import Span
from data_tools.hashed_file import HashedFile, save_array
from data_tools.indexed import as_bytes

PARTS = ("tokens.bin", "mask.bin", "lengths.npy", "sources.npy")


@dataclass(frozen=True)
class Unit:
    """One part of one input file."""

    index: int
    path: Path
    span: Span
    input_index: int
    size: int
    """Bytes of input, for progress."""


@dataclass(frozen=True)
class InputFile:
    """A file to read, as it was when the run was planned."""

    path: Path
    input_index: int
    size: int
    mtime_ns: int


def list_input(path: Path, input_index: int) -> InputFile:
    """The file with its size and time."""
    status = path.stat()
    return InputFile(path, input_index, status.st_size, status.st_mtime_ns)


def plan_units(files: Sequence[InputFile], unit_bytes: int) -> list[Unit]:
    """Cut the files into units, in order."""
    units: list[Unit] = []
    for file in files:
        for span, size in _spans(file, unit_bytes):
            units.append(Unit(len(units), file.path, span, file.input_index, size))
    return units


def _spans(file: InputFile, unit_bytes: int) -> list[tuple[Span, int]]:
    if file.path.name.endswith(".parquet"):
        return _row_group_spans(file, unit_bytes)
    if jsonl.is_compressed(file.path) or file.size <= unit_bytes:
        return [(Span(), file.size)]
    cuts = [*range(0, file.size, unit_bytes), file.size]
    return [(Span(a, b), b - a) for a, b in itertools.pairwise(cuts)]


def _row_group_spans(file: InputFile, unit_bytes: int) -> list[tuple[Span, int]]:
    metadata = parquet.open_file(file.path).metadata
    sizes = [metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups)]
    spans: list[tuple[Span, int]] = []
    start = 0
    for i in range(len(sizes)):
        size = sum(sizes[start : i + 1])
        if size >= unit_bytes or i == len(sizes) - 1:
            spans.append((Span(start, i + 1), size))
            start = i + 1
    return spans


class SourceCount(Config):
    """What became of the rows of one source."""

    rows: int = 0
    """Read and routed; each drawn copy (ratio) counts."""
    excluded: int = 0
    """Left out because a removal list names them; not in `rows`."""
    documents: int = 0
    tokens: int = 0
    trained_tokens: int = 0
    content_tokens: int = 0
    """Of all rows, before long ones were shortened: neither headers nor end tokens."""
    trained_content_tokens: int = 0
    truncated: int = 0
    split: int = 0
    dropped_long: int = 0
    dropped_untrained: int = 0
    """Documents (or pieces) without one target token."""

    def __add__(self, other: SourceCount) -> SourceCount:
        return SourceCount(**{k: getattr(self, k) + getattr(other, k) for k in type(self).model_fields})


class UnitRecord(Config):
    """What a finished unit holds."""

    index: int
    key: str
    """Hash of everything the content depends on."""
    counts: dict[str, SourceCount]
    """By source, in the order of the codes in sources.npy."""
    bad_rows: dict[str, int]
    """Skipped rows by reason."""
    backend: str
    mismatch: str | None
    """Text on which the fast tokenizer failed its recheck, when the unit was redone with the reference."""
    sizes: dict[str, int]
    hashes: dict[str, str]


def unit_directory(work: Path, index: int) -> Path:
    """Where a finished unit lies."""
    return work / "units" / f"{index:05d}"


def finished_unit(work: Path, index: int, key: str) -> UnitRecord | None:
    """The record of a unit that is complete, made with the same key, and whose bytes are what was written.

    None for any other: it is made again.
    """
    directory = unit_directory(work, index)
    try:
        record = validate(UnitRecord, read_sealed_json(directory / "record.json"), where=str(directory))
    except OsimError:
        return None
    if record.key != key:
        return None
    for name in PARTS:
        path = directory / name
        if (
            not path.is_file()
            or path.stat().st_size != record.sizes.get(name)
            or hash_file(path) != record.hashes.get(name)
        ):
            return None
    return record


class UnitWriter:
    """Streams the documents of one unit to disk; memory holds lengths only."""

    def __init__(self, directory: Path, dtype: np.dtype[Any]) -> None:
        self._directory, self._dtype = directory, dtype
        self._tokens = HashedFile(directory / "tokens.bin")
        self._mask = HashedFile(directory / "mask.bin")
        self._lengths: list[NDArray[np.int32]] = []
        self._sources: list[NDArray[np.uint16]] = []

    def add(
        self,
        tokens: NDArray[np.int32 | np.uint16],
        mask: NDArray[np.uint8],
        lengths: NDArray[np.int32],
        sources: NDArray[np.uint16],
    ) -> None:
        """Append documents: their tokens and masks back to back, and per document its length and source code."""
        self._tokens.write(as_bytes(tokens.astype(self._dtype, copy=False)))
        self._mask.write(as_bytes(mask))
        self._lengths.append(lengths)
        self._sources.append(sources)

    def close(self) -> tuple[dict[str, int], dict[str, str]]:
        """Write the small arrays; sizes and hashes of PARTS."""
        facts = {"tokens.bin": self._tokens.close(durable=False), "mask.bin": self._mask.close(durable=False)}
        empty_lengths, empty_sources = np.zeros(0, np.int32), np.zeros(0, np.uint16)
        for name, array in (
            ("lengths.npy", np.concatenate([empty_lengths, *self._lengths])),
            ("sources.npy", np.concatenate([empty_sources, *self._sources])),
        ):
            facts[name] = save_array(self._directory / name, array, durable=False)
        return {name: size for name, (size, _) in facts.items()}, {
            name: digest for name, (_, digest) in facts.items()
        }
