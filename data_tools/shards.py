"""A shard: everything that `osim data prepare` writes under one PREFIX, and how it is read.

    PREFIX.bin/.idx         token ids, one sequence = one document = one conversation; stock IndexedDataset reads it
    PREFIX.mask.bin/.idx    one byte per token, same geometry: bit 0 = target, other bits = role
    PREFIX.sources.npy      uint16 per document: index into the manifest's sources
    PREFIX.pack             bins of documents for one sequence length (repack.py makes others without tokenizing)
    PREFIX.manifest.json    counts, checksums, tokenizer, command (manifest.py)

PREFIX.idx is written last: when it exists, the shard is complete.
"""

from __future__ import annotations

import os
import struct
import tokenize
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from common.errors import SHAPE_ERRORS, DataError
from data_tools.assemble import ROLE_SHIFT, TRAIN_BIT
from data_tools.indexed import IndexedReader, add_suffix, as_bytes
from data_tools.manifest import Manifest
from data_tools.packing import Packing

PACK_MAGIC = b"OSIMPACK"
PACK_VERSION = 1
_PACK_HEADER = struct.Struct("<8sQQQQQ")
"""magic, version, capacity, bins, packed documents, fingerprint of the lengths."""
SUFFIXES = (".bin", ".mask.bin", ".mask.idx", ".sources.npy", ".pack", ".manifest.json", ".idx")


@dataclass(frozen=True)
class Shard:
    """A shard opened for reading; arrays are memory-mapped."""

    prefix: Path
    tokens: IndexedReader
    mask: IndexedReader
    sources: NDArray[np.uint16]
    """uint16[num_documents], index into manifest.sources."""
    manifest: Manifest

    @classmethod
    def open(cls, prefix: Path) -> Shard:
        """Open and check sizes and geometry; token bytes are not read. Raises DataError naming the damaged file."""
        if not add_suffix(prefix, ".idx").is_file():
            raise DataError(
                "no complete shard", where=str(prefix), fix="run `osim data prepare`; the same command resumes it"
            )
        tokens = IndexedReader.open(prefix)
        mask = IndexedReader.open(add_suffix(prefix, ".mask"))
        sources = _open_sources(add_suffix(prefix, ".sources.npy"))
        if len(mask) != len(tokens) or mask.num_items != tokens.num_items or len(sources) != len(tokens):
            raise DataError(
                "tokens, mask and sources have different geometry",
                where=str(prefix),
                fix="these files are not of one run; run `osim data prepare` again",
            )
        manifest = Manifest.read(prefix)
        if len(sources) and int(sources.max()) >= len(manifest.sources):
            raise DataError(
                "documents of sources that the manifest does not name",
                where=str(add_suffix(prefix, ".sources.npy")),
                fix="these files are not of one run; run `osim data prepare` again",
            )
        return cls(prefix, tokens, mask, sources, manifest)

    def __len__(self) -> int:
        return len(self.tokens)

    def document(self, i: int) -> tuple[NDArray[np.int32], NDArray[np.bool_], NDArray[np.uint8]]:
        """(token ids int32[T], is a target bool[T], role index uint8[T]) of document i."""
        flags = self.mask[i]
        return self.tokens[i].astype(np.int32), (flags & TRAIN_BIT).astype(np.bool_), flags >> np.uint8(ROLE_SHIFT)

    def source(self, i: int) -> str:
        """data_source of document i."""
        return self.manifest.sources[int(self.sources[i])]


def _open_sources(path: Path) -> NDArray[np.uint16]:
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (*SHAPE_ERRORS, EOFError, MemoryError, SyntaxError, tokenize.TokenError) as e:
        raise DataError(f"not readable: {e}", where=str(path), fix="run `osim data prepare` again") from e
    if array.dtype != np.uint16 or array.ndim != 1:
        raise DataError("not a uint16 vector", where=str(path), fix="run `osim data prepare` again")
    return array


def lengths_fingerprint(lengths: NDArray[np.int32]) -> int:
    """Ties a .pack to the .idx it was made for: 64-bit xxh3 of the lengths."""
    return xxhash.xxh3_64_intdigest(as_bytes(lengths))


def write_pack(path: Path, packing: Packing, lengths: NDArray[np.int32]) -> None:
    """Write PREFIX.pack: header, int64 offsets[bins + 1], uint32 documents."""
    header = _PACK_HEADER.pack(
        PACK_MAGIC,
        PACK_VERSION,
        packing.capacity,
        packing.num_bins,
        len(packing.documents),
        lengths_fingerprint(lengths),
    )
    with path.open("wb") as f:
        f.write(header)
        f.write(as_bytes(packing.offsets.astype("<i8", copy=False)))
        f.write(as_bytes(packing.documents.astype("<u4", copy=False)))
        f.flush()
        os.fsync(f.fileno())


def read_pack(path: Path, lengths: NDArray[np.int32]) -> Packing:
    """Map PREFIX.pack. Raises DataError when it is missing, truncated or made for other documents."""
    if not path.is_file():
        raise DataError(
            "the shard is not packed", where=str(path), fix="run `osim data pack PREFIX --sequence-length N`"
        )
    fix = "run `osim data pack` again"
    with path.open("rb") as f:
        raw = f.read(_PACK_HEADER.size)
    if len(raw) != _PACK_HEADER.size:
        raise DataError("truncated", where=str(path), fix=fix)
    magic, version, capacity, bins, documents, fingerprint = _PACK_HEADER.unpack(raw)
    if magic != PACK_MAGIC or version != PACK_VERSION:
        raise DataError("not a pack file of this version", where=str(path), fix=fix)
    if path.stat().st_size != len(raw) + 8 * (bins + 1) + 4 * documents:
        raise DataError("truncated", where=str(path), fix=fix)
    if fingerprint != lengths_fingerprint(lengths):
        raise DataError("made for other documents than the index holds", where=str(path), fix=fix)
    offsets = np.memmap(path, "<i8", "r", offset=len(raw), shape=(bins + 1,))
    chosen: NDArray[Any] = np.zeros(0, np.uint32)
    if documents:
        chosen = np.memmap(path, "<u4", "r", offset=len(raw) + 8 * (bins + 1), shape=(documents,))
    ordered = offsets[0] == 0 and offsets[-1] == documents and bool((offsets[:-1] <= offsets[1:]).all())
    if not ordered or (documents and int(chosen.max()) >= len(lengths)):
        raise DataError("bins of documents that do not exist", where=str(path), fix=fix)
    return Packing(capacity, offsets, chosen)
