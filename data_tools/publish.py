"""Joining finished parts (units of one run, or shards of several jobs) into one shard, made visible at the end.

Every file is written under a temporary name and renamed; PREFIX.idx comes last, so that a reader sees the earlier
shard, or none, or the whole new one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.errors import DataError
from common.files import fsync_directory, hash_file
from data_tools.config import MixtureConfig, PrepareConfig
from data_tools.hashed_file import concatenate, save_array
from data_tools.indexed import add_suffix, write_index
from data_tools.manifest import FileFacts, Manifest, PackFacts
from data_tools.mixture import draw_documents
from data_tools.packing import MAX_SEGMENTS, WINDOW, Packing, pack
from data_tools.shards import SUFFIXES, write_pack

MAX_SOURCES = 1 << 16


@dataclass(frozen=True)
class Part:
    """Some documents on disk, with their sources by name."""

    tokens: Path
    mask: Path
    lengths: NDArray[np.int32]
    """int32[documents]"""
    source_codes: NDArray[np.uint16]
    """uint16[documents], index into `source_names`."""
    source_names: Sequence[str]


@dataclass(frozen=True)
class PackSettings:
    """How to pack; see packing.pack."""

    sequence_length: int
    seed: int
    window: int = WINDOW
    max_segments: int = MAX_SEGMENTS
    mixture: MixtureConfig | None = None

    @classmethod
    def of(cls, config: PrepareConfig) -> PackSettings | None:
        """How the configuration packs, if it does."""
        if config.sequence_length is None:
            return None
        return cls(config.sequence_length, config.seed, config.pack_window, config.max_segments, config.mixture)


@dataclass(frozen=True)
class Joined:
    """A shard that is written but not yet visible."""

    sources: tuple[str, ...]
    documents: int
    tokens: int
    longest: int
    pack: PackFacts | None
    files: dict[str, FileFacts]

    @classmethod
    def nothing(cls) -> Joined:
        """Of a job of several to which no document fell; published, it is a manifest alone."""
        return cls((), 0, 0, 0, None, {})


def join(prefix: Path, parts: Sequence[Part], dtype: np.dtype[Any], settings: PackSettings | None) -> Joined:
    """Write the files of a shard under temporary names. `publish` makes them visible."""
    prefix.parent.mkdir(parents=True, exist_ok=True)
    discard(prefix)
    names = tuple(sorted({name for part in parts for name in part.source_names}))
    if len(names) > MAX_SOURCES:
        raise DataError(f"{len(names)} sources; at most {MAX_SOURCES} fit", fix="give fewer data_source names")
    lengths = np.concatenate([np.zeros(0, np.int32), *(p.lengths for p in parts)])
    if not len(lengths):
        raise DataError(
            "no document is left", where=str(prefix), fix="look at the manifest's counts; check routing and on_long"
        )
    facts = {
        ".bin": concatenate([p.tokens for p in parts], _temporary(prefix, ".bin")),
        ".mask.bin": concatenate([p.mask for p in parts], _temporary(prefix, ".mask.bin")),
    }
    write_index(_temporary(prefix, ".idx"), lengths, dtype)
    write_index(_temporary(prefix, ".mask.idx"), lengths, np.dtype(np.uint8))
    code = {name: i for i, name in enumerate(names)}
    sources = np.concatenate([np.array([code[n] for n in p.source_names], np.uint16)[p.source_codes] for p in parts])
    facts[".sources.npy"] = save_array(_temporary(prefix, ".sources.npy"), sources)
    packed = None
    if settings is not None:
        packing, packed = pack_documents(lengths, sources, names, settings)
        write_pack(_temporary(prefix, ".pack"), packing, lengths)
    for suffix in SUFFIXES:
        path = _temporary(prefix, suffix)
        if suffix not in facts and path.exists():
            facts[suffix] = (path.stat().st_size, hash_file(path))
    files = {suffix: FileFacts(size=size, xxh3_128=digest) for suffix, (size, digest) in sorted(facts.items())}
    return Joined(names, len(lengths), int(lengths.sum(dtype=np.int64)), int(lengths.max()), packed, files)


def publish(prefix: Path, joined: Joined, manifest: Manifest) -> None:
    """Make a joined shard visible in place of an earlier one."""
    manifest.write(prefix, path=_temporary(prefix, ".manifest.json"))
    add_suffix(prefix, ".idx").unlink(missing_ok=True)
    for suffix in SUFFIXES:
        if suffix in joined.files or suffix == ".manifest.json":
            if suffix == ".idx":
                fsync_directory(prefix.parent)
            _temporary(prefix, suffix).replace(add_suffix(prefix, suffix))
        else:
            add_suffix(prefix, suffix).unlink(missing_ok=True)
    fsync_directory(prefix.parent)


def discard(prefix: Path) -> None:
    """Remove what a killed run left under temporary names."""
    for suffix in SUFFIXES:
        _temporary(prefix, suffix).unlink(missing_ok=True)


def pack_documents(
    lengths: NDArray[np.int32],
    sources: NDArray[np.uint16],
    names: Sequence[str],
    settings: PackSettings,
    *,
    drop_long: bool = False,
) -> tuple[Packing, PackFacts]:
    """Pack the documents of a shard, with the facts for the manifest. drop_long: leave out what fits into no bin."""
    chosen = np.arange(len(lengths), dtype=np.uint32)
    if drop_long:
        chosen = chosen[lengths <= settings.sequence_length]
    if settings.mixture is not None:
        chosen = chosen[draw_documents(lengths[chosen], sources[chosen], names, settings.mixture, settings.seed)]
    packing = pack(
        lengths[chosen],
        settings.sequence_length,
        settings.seed,
        window=settings.window,
        max_segments=settings.max_segments,
    )
    packing = replace(packing, documents=chosen[packing.documents])
    tokens = packed_tokens(packing, lengths, sources, names)
    return packing, PackFacts(
        sequence_length=settings.sequence_length,
        bins=packing.num_bins,
        documents=len(packing.documents),
        fill=sum(tokens.values()) / max(1, packing.num_bins * settings.sequence_length),
        max_segments=int(np.diff(packing.offsets).max(initial=0)),
        seed=settings.seed,
        mixture=settings.mixture,
        tokens=tokens,
    )


def packed_tokens(
    packing: Packing, lengths: NDArray[np.int32], sources: NDArray[np.uint16], names: Sequence[str]
) -> dict[str, int]:
    """Tokens in the bins, by source."""
    documents = packing.documents
    counts = np.bincount(sources[documents], lengths[documents], minlength=len(names)).astype(np.int64)
    return dict(zip(names, counts.tolist(), strict=True))


def _temporary(prefix: Path, suffix: str) -> Path:
    return prefix.with_name(f".{prefix.name}{suffix}.tmp")
