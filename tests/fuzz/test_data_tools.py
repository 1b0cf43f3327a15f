"""Corpus files, shards, packs, manifests, removal lists, routing, tokenizers, unfinished units, cached contexts."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from common.errors import DataError, OsimError
from data_tools import jsonl
from data_tools.config import InputConfig, PrepareConfig
from data_tools.ground import GroundConfig, _Run, make_client
from data_tools.indexed import IndexedReader, add_suffix
from data_tools.packed import PackedShard
from data_tools.prepare import prepare
from data_tools.removal import excluded_positions
from data_tools.renderer import Renderer
from data_tools.routing import Routing
from data_tools.rows import read_batches, read_conversations
from data_tools.shards import SUFFIXES, Shard
from data_tools.units import UnitRecord, finished_unit, unit_directory
from tests.fuzz.harness import files, fuzz, memory_limit, mutated, survives, texts, to_json

ROW = {
    "id": "r1",
    "data_source": "tom_hitom",
    "messages": [
        {"role": "system", "content": "You are Ann."},
        {"role": "user", "content": "Where is it?"},
        {"role": "assistant", "content": "In the café 👩‍💻."},
    ],
    "extra_info": {"messages": [{"role": "user", "content": "x"}]},
}
JSONL = b"".join(to_json(ROW | {"id": f"r{i}"}) + b"\n" for i in range(4))
ROLES = {"system", "user", "assistant", "tool"}


def parquet_bytes() -> bytes:
    out = io.BytesIO()
    rows = [{"id": f"r{i}", "data_source": "x", "messages": ROW["messages"]} for i in range(20)]
    pq.write_table(pa.Table.from_pylist(rows), out, row_group_size=7)
    return out.getvalue()


def read_all(path: Path) -> int:
    """Every row as columns and as objects; each is what a conversation must be."""
    count = 0
    for batch in read_batches(path, on_bad_row="skip"):
        assert len(batch.columns) == len(batch.rows) == len(batch.positions)
        for row in batch.rows:
            assert row.messages and all(m.role in ROLES for m in row.messages)
            "".join([row.source, row.id, *(m.content for m in row.messages)]).encode()
            count += 1
    return count


def survives_reading(path: Path) -> None:
    count = survives(lambda: read_all(path))
    whole = survives(lambda: len(list(read_conversations([path]))))
    # Stopping at a bad row and skipping it agree on what is usable.
    assert isinstance(whole, OsimError) or whole == count


@fuzz(60)
@given(data=files(JSONL))
def test_any_jsonl_gives_conversations_or_bad_rows(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(data)
    survives_reading(path)


@pytest.mark.parametrize("compress", [gzip.compress, zstandard.compress], ids=["gz", "zst"])
@fuzz(25)
@given(data=st.data())
def test_any_compressed_corpus_is_read_or_damaged(compress: Any, data: st.DataObject, tmp_path: Path) -> None:
    path = tmp_path / ("rows.jsonl.gz" if compress is gzip.compress else "rows.jsonl.zst")
    path.write_bytes(data.draw(mutated(compress(JSONL)) | files(JSONL).map(compress) | st.binary(max_size=60)))
    survives_reading(path)


@fuzz(40)
@given(data=mutated(parquet_bytes()) | st.binary(max_size=60))
def test_any_parquet_is_read_or_damaged(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    path.write_bytes(data)
    survives_reading(path)


COLUMNS = st.sampled_from(
    [
        pa.array([None, None]),
        pa.array([1, 2]),
        pa.array([[], None], pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),
        pa.array([[{"role": "user", "content": 1}], [{"role": "x", "content": 2}]]),
        pa.array([[{"role": "user"}], []]),
        pa.array([["a"], ["b"]]),
        pa.array([{"messages": [{"role": "user", "content": "x"}]}, None]),
        pa.array([{"messages": 3}, {"messages": 4}]),
        pa.array([b"\xff", b"ok"]),
        pa.array(["a", None]).dictionary_encode(),
        pa.array([[{"role": None, "content": "x"}], [{"role": "user", "content": None}]]),
        pa.array([[("a", "b")], []], pa.map_(pa.string(), pa.string())),
    ]
)


@fuzz(40)
@given(columns=st.dictionaries(st.sampled_from(("messages", "extra_info", "data_source", "id", "x")), COLUMNS))
def test_any_schema_gives_conversations_or_an_error(columns: dict[str, pa.Array], tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table(columns), path)
    survives_reading(path)


def test_strings_of_a_parquet_file_that_are_no_utf8_are_bad_rows(tmp_path: Path) -> None:
    broken = pa.Array.from_buffers(
        pa.string(), 1, [None, pa.py_buffer(struct.pack("<ii", 0, 2)), pa.py_buffer(b"\xff\xfe")]
    )
    messages = pa.ListArray.from_arrays(
        pa.array([0, 1], pa.int32()), pa.StructArray.from_arrays([pa.array(["user"]), broken], ["role", "content"])
    )
    for name in ("messages", "data_source", "id"):
        columns = {"messages": messages} if name == "messages" else {"messages": COLUMN_OF_ONE, name: broken}
        pq.write_table(pa.table(columns), tmp_path / "rows.parquet")
        survives_reading(tmp_path / "rows.parquet")


COLUMN_OF_ONE = pa.array([[{"role": "user", "content": "x"}]])


@pytest.mark.parametrize("name", ["rows.jsonl.gz", "rows.jsonl.zst"])
def test_a_small_file_that_expands_without_end_is_read_in_bounded_memory(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One endless line in a small file: a bad row, and never more of it in memory than a row may be."""
    monkeypatch.setattr(jsonl, "MAX_ROW_BYTES", 4 << 20)
    block, blocks = b"a" * (1 << 20), 200
    if name.endswith("gz"):
        with gzip.open(tmp_path / name, "wb", compresslevel=1) as f:
            for _ in range(blocks):
                f.write(block)
    else:
        with zstandard.open(tmp_path / name, "wb") as f:
            for _ in range(blocks):
                f.write(block)
    with memory_limit(64 << 20):
        (batch,) = read_batches(tmp_path / name, on_bad_row="skip")
    assert [b.reason for b in batch.bad] == ["too_large"]


@pytest.fixture(scope="module")
def shard(tiny_tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """PREFIX of a small packed shard."""
    folder = tmp_path_factory.mktemp("shard")
    (folder / "rows.jsonl").write_bytes(JSONL)
    config = PrepareConfig(
        inputs=(InputConfig(glob=str(folder / "rows.jsonl")),),
        tokenizer=tiny_tokenizer,
        output=folder / "s",
        sequence_length=128,
    )
    prepare(config)
    return folder / "s"


def read_shard(prefix: Path) -> None:
    """All documents and all bins, and that they are consistent."""
    opened = Shard.open(prefix)
    for i in range(len(opened)):
        ids, train, roles = opened.document(i)
        assert len(ids) == len(train) == len(roles) == int(opened.tokens.lengths[i])
        assert opened.source(i) in opened.manifest.sources
    packed = PackedShard.open(prefix)
    for i in range(packed.num_bins):
        one = packed.bin(i)
        assert 0 < len(one.token_ids) == len(one.train) == int(one.segment_lengths.sum()) <= packed.sequence_length


def copy_shard(prefix: Path, folder: Path) -> Path:
    for suffix in SUFFIXES:
        shutil.copy(add_suffix(prefix, suffix), add_suffix(folder / "s", suffix))
    return folder / "s"


@pytest.mark.parametrize("suffix", SUFFIXES)
@fuzz(15)
@given(data=st.data())
def test_any_file_of_a_shard_is_consistent_or_damaged(
    suffix: str, data: st.DataObject, shard: Path, tmp_path: Path
) -> None:
    prefix = copy_shard(shard, tmp_path)
    original = add_suffix(prefix, suffix).read_bytes()
    add_suffix(prefix, suffix).write_bytes(data.draw(files(original)))
    survives(lambda: read_shard(prefix))


LIES = (2**31 - 1, 2**32, 2**60, 2**63 - 1, 2**64 - 1)


@pytest.mark.parametrize("lie", LIES)
def test_counts_that_lie_are_refused_without_allocating(lie: int, shard: Path, tmp_path: Path) -> None:
    prefix = copy_shard(shard, tmp_path)
    index, pack = add_suffix(prefix, ".idx"), add_suffix(prefix, ".pack")
    whole = {path: path.read_bytes() for path in (index, pack)}
    with memory_limit(256 << 20):
        for path, offsets in ((index, (18, 26)), (pack, (16, 24, 32))):
            for at in offsets:
                path.write_bytes(whole[path][:at] + struct.pack("<Q", lie) + whole[path][at + 8 :])
                found = survives(lambda: read_shard(prefix))
                assert isinstance(found, DataError) or (path, at) == (pack, 16)  # a larger capacity is no damage
                path.write_bytes(whole[path])
        header = f"{{'descr': '<u2', 'fortran_order': False, 'shape': ({lie},), }}".encode().ljust(117) + b"\n"
        add_suffix(prefix, ".sources.npy").write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", 118) + header)
        assert isinstance(survives(lambda: Shard.open(prefix)), DataError)


def test_lengths_and_pointers_that_do_not_fit_together_are_refused(shard: Path, tmp_path: Path) -> None:
    prefix = copy_shard(shard, tmp_path)
    path = add_suffix(prefix, ".idx")
    whole = bytearray(path.read_bytes())
    (count,) = struct.unpack_from("<Q", whole, 18)
    lengths = np.frombuffer(whole, "<i4", count, 34)
    # The sum stays the same: only the documents between are wrong.
    for first, second in ((lengths[0] + 1, lengths[1] - 1), (-lengths[0], 2 * lengths[0] + lengths[1])):
        changed = whole[:34] + struct.pack("<ii", first, second) + whole[42:]
        path.write_bytes(changed)
        with pytest.raises(DataError, match="index"):
            IndexedReader.open(prefix)


def test_pickled_arrays_are_never_loaded(shard: Path, tmp_path: Path) -> None:
    prefix = copy_shard(shard, tmp_path)
    np.save(add_suffix(prefix, ".sources.npy"), np.array([print], object), allow_pickle=True)
    with pytest.raises(DataError, match=r"sources\.npy"):
        Shard.open(prefix)


REMOVALS = b'{"file": "a.jsonl", "position": 3, "source": "s"}\n{"file": "b.jsonl", "position": 0, "source": "s"}\n'


@fuzz(25)
@given(data=files(REMOVALS))
def test_any_removal_list_is_read_or_refused(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "removals.jsonl").write_bytes(data)
    survives(lambda: excluded_positions((tmp_path / "removals.jsonl",)))


RECORD = UnitRecord(
    index=0, key="k", counts={}, bad_rows={}, backend="hf", mismatch=None, sizes={"a": 1}, hashes={"a": "b"}
)


@fuzz(25)
@given(data=files(RECORD.model_dump_json().encode()))
def test_a_damaged_unit_is_made_again(data: bytes, tmp_path: Path) -> None:
    folder = unit_directory(tmp_path, 0)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "record.json").write_bytes(data)
    assert finished_unit(tmp_path, 0, "k") is None


def test_the_tokenizer_folder(tiny_tokenizer: Path, tmp_path: Path) -> None:
    valid = json.loads((tiny_tokenizer / "tokenizer.json").read_text())
    small = valid | {"model": valid["model"] | {"vocab": dict(list(valid["model"]["vocab"].items())[:300])}}

    @fuzz(20)
    @given(data=files(json.dumps(small).encode()))
    def any_tokenizer_is_loaded_or_refused(data: bytes) -> None:
        (tmp_path / "tokenizer.json").write_bytes(data)

        def use() -> None:
            renderer = Renderer.load(tmp_path)
            assert all(0 <= i < 2**31 for i in renderer.encode_content("Anna said café 42"))

        survives(use)

    any_tokenizer_is_loaded_or_refused()


@fuzz(30)
@given(source=texts)
def test_any_source_name_has_a_rule_or_a_named_error(source: str) -> None:
    found = survives(lambda: Routing().rule(source, where="row 1"))
    assert found is not None


CONTEXTS = (
    b'{"key": "k", "context": {"speaker": "Ann", "relation": "Bob", "situation": "shop", "goal": "milk"}}\n'
    b'{"key": "l", "context": {"speaker": "Ann", "relation": "Bob", "situation": "shop", "goal": "milk"}}\n'
)


@fuzz(20)
@given(data=files(CONTEXTS))
def test_any_cache_of_contexts_is_read_or_refused(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "out.jsonl.cache.jsonl").write_bytes(data)
    config = GroundConfig(model="m", base_url="http://127.0.0.1:9/v1")
    client = make_client(config)
    survives(lambda: _Run([], tmp_path / "out.jsonl", config, client, None))
