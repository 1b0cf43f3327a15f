"""The shard format: Megatron's own reader agrees; damage is an error on opening."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.errors import DataError
from data_tools.indexed import IndexedReader, add_suffix, token_dtype, write_index
from data_tools.inspect import spans
from data_tools.packed import PackedShard
from data_tools.prepare import prepare
from data_tools.publish import PackSettings
from data_tools.renderer import Renderer
from data_tools.repack import repack
from data_tools.shards import Shard
from data_tools.verify import examine, verify
from tests.data_tools.conftest import make_rows


@pytest.fixture
def shard_prefix(make_config):
    config = make_config(make_rows(60))
    prepare(config)
    return config.output


def write_pair(prefix, sequences, dtype):
    add_suffix(prefix, ".bin").write_bytes(b"".join(np.array(s, dtype).tobytes() for s in sequences))
    write_index(add_suffix(prefix, ".idx"), np.array([len(s) for s in sequences], np.int32), np.dtype(dtype))


@given(
    st.lists(st.lists(st.integers(0, 200), max_size=9), max_size=20), st.sampled_from([np.uint8, np.uint16, np.int32])
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_written_is_read_back(tmp_path, sequences, dtype):
    write_pair(tmp_path / "x", sequences, dtype)
    reader = IndexedReader.open(tmp_path / "x")
    assert [reader[i].tolist() for i in range(len(reader))] == sequences


def test_our_index_is_byte_identical_to_megatrons_and_both_read_both_files(tmp_path, shard_prefix):
    from megatron.core.datasets.indexed_dataset import IndexedDataset, IndexedDatasetBuilder

    shard = Shard.open(shard_prefix)
    for suffix, reader in (("", shard.tokens), (".mask", shard.mask)):
        stock = IndexedDataset(str(add_suffix(shard_prefix, suffix)))
        assert len(stock) == len(reader)
        for i in range(len(reader)):
            assert np.array_equal(stock[i], reader[i])
        np.testing.assert_array_equal(stock.document_indices, np.arange(len(reader) + 1))
        builder = IndexedDatasetBuilder(str(tmp_path / "stock.bin"), dtype=reader.dtype.type)
        for i in range(len(reader)):
            builder.add_document(_as_tensor(reader[i]), [int(reader.lengths[i])])
        builder.finalize(str(tmp_path / "stock.idx"))
        for end in (".bin", ".idx"):
            assert (tmp_path / f"stock{end}").read_bytes() == add_suffix(shard_prefix, suffix + end).read_bytes()


@pytest.mark.slow
def test_megatrons_gpt_dataset_samples_our_shard(tmp_path, shard_prefix, tokenizer):
    from megatron.core.datasets.blended_megatron_dataset_builder import BlendedMegatronDatasetBuilder
    from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig

    class StockTokenizer:
        eod, pad = tokenizer.token_to_id("<|endoftext|>"), tokenizer.token_to_id("<|endoftext|>")
        vocab_size, unique_identifiers = tokenizer.get_vocab_size(), {"class": "test"}

    config = GPTDatasetConfig(
        random_seed=1,
        sequence_length=64,
        blend=([str(shard_prefix)], None),
        split="1,0,0",
        path_to_cache=str(tmp_path / "cache"),
        reset_position_ids=False,
        reset_attention_mask=False,
        eod_mask_loss=False,
        tokenizer=StockTokenizer(),
    )
    train, _, _ = BlendedMegatronDatasetBuilder(GPTDataset, [40, 0, 0], lambda: True, config).build()
    shard = Shard.open(shard_prefix)
    order = list(train.document_index)
    stream = np.concatenate([shard.document(i)[0] for i in order])
    assert len(train) >= 40
    for i in range(40):
        sample = train[i]
        start = int(train.shuffle_index[i]) * 64
        assert np.array_equal(sample["tokens"].numpy(), stream[start : start + 64])
        assert np.array_equal(sample["labels"].numpy(), stream[start + 1 : start + 65])


def _as_tensor(array):
    import torch

    return torch.from_numpy(np.array(array, np.int64))


def test_small_vocabularies_are_stored_in_two_bytes():
    assert token_dtype(65_499) == np.uint16 and token_dtype(65_500) == np.int32


@pytest.mark.parametrize(
    "suffix", [".bin", ".mask.bin", ".idx", ".mask.idx", ".pack", ".sources.npy", ".manifest.json"]
)
def test_a_truncated_file_is_an_error_on_opening(shard_prefix, suffix):
    path = add_suffix(shard_prefix, suffix)
    data = path.read_bytes()
    for kept in (data[: len(data) // 2], data[:-2], b""):
        path.write_bytes(kept)
        with pytest.raises(DataError, match=path.name.replace(".", r"\.")):
            PackedShard.open(shard_prefix)
    path.unlink()
    with pytest.raises(DataError):
        PackedShard.open(shard_prefix)


@pytest.mark.parametrize("suffix", [".bin", ".mask.bin", ".mask.idx", ".pack", ".sources.npy"])
def test_verify_finds_one_changed_byte(shard_prefix, suffix):
    assert not examine(shard_prefix).problems
    path = add_suffix(shard_prefix, suffix)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    try:
        problems = examine(shard_prefix).problems
    except DataError as e:
        problems = (str(e),)
    assert any(path.name in p for p in problems)


def test_verify_decodes_and_encodes_documents_again(shard_prefix, tokenizer_dir, tmp_path):
    report = verify(shard_prefix, tokenizer=tokenizer_dir)
    assert "packing" in report.checks and not report.problems
    # Swap two ids of the longest document: checksums differ and the text encodes otherwise.
    shard = Shard.open(shard_prefix)
    tokens = np.memmap(add_suffix(shard_prefix, ".bin"), np.uint16, "r+")
    tokens[:] = np.where((tokens >= 256) & (tokens < 300), tokens - 1, tokens)
    tokens.flush()
    with pytest.raises(DataError, match="encodes to other ids"):
        verify(shard_prefix, tokenizer=tokenizer_dir, sample=len(shard))


def test_packed_bins_are_whole_documents_with_their_masks_and_sources(shard_prefix):
    packed = PackedShard.open(shard_prefix)
    seen = []
    for i in range(packed.num_bins):
        one = packed.bin(i)
        assert len(one.token_ids) == len(one.train) == one.segment_lengths.sum() <= packed.sequence_length
        documents = packed.packing.documents[packed.packing.offsets[i] : packed.packing.offsets[i + 1]]
        parts = [packed.shard.document(d) for d in documents]
        assert np.array_equal(one.token_ids, np.concatenate([p[0] for p in parts]))
        assert np.array_equal(one.train, np.concatenate([p[1] for p in parts]))
        assert [packed.manifest.sources[s] for s in one.source_ids] == [packed.shard.source(d) for d in documents]
        seen += documents.tolist()
    assert sorted(seen) == list(range(len(packed.shard)))


def test_repack_changes_only_the_packing(shard_prefix):
    tokens = add_suffix(shard_prefix, ".bin").read_bytes()
    longest = Shard.open(shard_prefix).manifest.longest
    manifest = repack(shard_prefix, PackSettings(2 * longest, seed=3))
    assert (
        manifest.pack.sequence_length == 2 * longest and PackedShard.open(shard_prefix).sequence_length == 2 * longest
    )
    assert add_suffix(shard_prefix, ".bin").read_bytes() == tokens
    verify(shard_prefix)
    with pytest.raises(DataError, match="do not fit"):
        repack(shard_prefix, PackSettings(longest - 1, seed=0))
    kept = repack(shard_prefix, PackSettings(longest - 1, seed=0), on_long="drop")
    assert kept.pack.documents < kept.documents
    verify(shard_prefix)
    with pytest.raises(DataError, match="more than the sequence length"):
        PackedShard.open(shard_prefix, sequence_length=16)


def test_a_pack_of_other_documents_is_refused(shard_prefix, make_config, tmp_path):
    other = make_config(make_rows(61), output=tmp_path / "other" / "shard")
    prepare(other)
    add_suffix(other.output, ".pack").replace(add_suffix(shard_prefix, ".pack"))
    with pytest.raises(DataError, match="other documents"):
        PackedShard.open(shard_prefix)


def test_a_document_is_shown_with_exactly_the_tokens_that_are_trained(shard_prefix, tokenizer_dir):
    shard, renderer = Shard.open(shard_prefix), Renderer.load(tokenizer_dir)
    for i in range(min(50, len(shard))):
        tokens, train, _ = shard.document(i)
        shown = spans(shard, renderer, i)
        assert [t for span in shown for t in span.ids] == tokens.tolist()
        assert [span.trained for span in shown for _ in span.ids] == [bool(t) for t in train]
