"""`osim data pack`: another packing of a shard, without tokenizing again."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import numpy as np

from common.files import fsync_directory, hash_file
from data_tools.indexed import add_suffix
from data_tools.manifest import FileFacts, Manifest
from data_tools.packing import MAX_SEGMENTS, WINDOW, Packing
from data_tools.publish import PackSettings, pack_lengths
from data_tools.shards import Shard, write_pack


def repack(
    prefix: Path,
    sequence_length: int,
    *,
    seed: int = 0,
    window: int = WINDOW,
    max_segments: int = MAX_SEGMENTS,
    on_long: Literal["stop", "drop"] = "stop",
) -> Manifest:
    """Replace PREFIX.pack by a packing to `sequence_length` tokens and return the updated manifest.

    Documents that do not fit are an error, or left out of the packing (`drop`); they stay in the shard.
    """
    shard = Shard.open(prefix)
    lengths = np.asarray(shard.tokens.lengths)
    chosen = np.arange(len(lengths), dtype=np.uint32)
    if on_long == "drop":
        chosen = chosen[lengths <= sequence_length]
    packing, facts = pack_lengths(lengths[chosen], PackSettings(sequence_length, seed, window, max_segments))
    packing = Packing(packing.capacity, packing.offsets, chosen[packing.documents])
    path = add_suffix(prefix, ".pack")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write_pack(temporary, packing, lengths)
        file = FileFacts(size=temporary.stat().st_size, xxh3_128=hash_file(temporary))
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    fsync_directory(path.parent)
    manifest = shard.manifest.model_copy(update={"pack": facts, "files": {**shard.manifest.files, ".pack": file}})
    manifest.write(prefix)
    return manifest
