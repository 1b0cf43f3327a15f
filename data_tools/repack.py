"""`osim data pack`: another packing of a shard, without tokenizing again."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import numpy as np

from common.files import fsync_directory, hash_file
from data_tools.indexed import add_suffix
from data_tools.manifest import FileFacts, Manifest
from data_tools.publish import PackSettings, pack_documents
from data_tools.shards import Shard, write_pack


def repack(prefix: Path, settings: PackSettings, *, on_long: Literal["stop", "drop"] = "stop") -> Manifest:
    """Replace PREFIX.pack by another packing and return the updated manifest.

    Documents that do not fit are an error, or left out of the packing (`drop`); they stay in the shard.
    """
    shard = Shard.open(prefix)
    lengths, sources = np.asarray(shard.tokens.lengths), np.asarray(shard.sources)
    packing, facts = pack_documents(lengths, sources, shard.manifest.sources, settings, drop_long=on_long == "drop")
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
