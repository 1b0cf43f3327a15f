"""Starting on a corpus of ten billion tokens reads its index files and nothing else."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import psutil

from data_tools.indexed import add_suffix, write_index
from data_tools.manifest import Manifest
from data_tools.packing import Packing
from data_tools.shards import write_pack
from megatron_osim.config import DataConfig, SourceConfig
from megatron_osim.data import TrainingData
from tests.megatron_osim.corpus import Corpus

DOCUMENTS, LENGTH = 1_250_000, 8_000
MIB = 1 << 20


def make_sparse_shard(prefix: Path, like: Path) -> int:
    """A shard of 10 billion zeros that takes no disk; returns the bytes of its indices."""
    lengths = np.full(DOCUMENTS, LENGTH, np.int32)
    for suffix, dtype in (("", np.dtype(np.int32)), (".mask", np.dtype(np.uint8))):
        path = add_suffix(prefix, suffix)
        write_index(add_suffix(path, ".idx"), lengths, dtype)
        with add_suffix(path, ".bin").open("wb") as f:
            os.truncate(f.fileno(), DOCUMENTS * LENGTH * dtype.itemsize)
    np.save(add_suffix(prefix, ".sources.npy"), np.zeros(DOCUMENTS, np.uint16))
    bins = DOCUMENTS // 2
    offsets, documents = np.arange(bins + 1, dtype=np.int64) * 2, np.arange(DOCUMENTS, dtype=np.uint32)
    write_pack(add_suffix(prefix, ".pack"), Packing(2 * LENGTH, offsets, documents), lengths)
    Manifest.read(like).model_copy(update={"documents": DOCUMENTS, "tokens": DOCUMENTS * LENGTH}).write(prefix)
    files = [f for f in prefix.parent.iterdir() if not f.name.endswith(".bin")]
    return sum(f.stat().st_size for f in files)


def test_starting_on_ten_billion_tokens_reads_index_files_only(corpus: Corpus, tmp_path: Path) -> None:
    index_bytes = make_sparse_shard(tmp_path / "huge", corpus.train)
    source = SourceConfig(name="huge", prefixes=(tmp_path / "huge",))
    config = DataConfig(sources=(source,), sequence_length=2 * LENGTH)
    process = psutil.Process()
    before, started = process.memory_info().rss, time.perf_counter()
    data = TrainingData(config, global_batch=4, seed=0, vocab_size=300)
    opened_s, grown = time.perf_counter() - started, process.memory_info().rss - before
    # The corpus is 50 GB: mapped pages that are read count as resident.
    assert grown < index_bytes + 64 * MIB < 200 * MIB
    [first, *_] = data.step(100_000)
    assert first.num_tokens == 2 * LENGTH
    assert process.memory_info().rss - before < index_bytes + 128 * MIB
    assert opened_s < 60
