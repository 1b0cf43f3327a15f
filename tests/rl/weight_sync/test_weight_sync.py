"""Checksums that both sides can compute, and weights on disk."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from rl.rollout.base import buckets
from rl.rollout.config import WeightSyncConfig
from rl.weight_sync.checksum import ChecksumTap, compare, tensor_checksum
from rl.weight_sync.disk import KEPT_VERSIONS, CheckpointWriter
from rl.weight_sync.sync import WeightSync

LAYER = "model.layers.3"


def test_a_checksum_is_the_first_eight_bytes_of_sha256():
    """SHA-256 of four zero bytes, from an independent implementation (coreutils)."""
    assert tensor_checksum(torch.zeros(1)) == "df3f619804a92fdb"


def test_sglang_names_are_the_fused_and_padded_tensors():
    parts = {x: torch.randn(4, 6) for x in ("q", "k", "v", "gate", "up")}
    stream = [
        ("model.embed_tokens.weight", torch.randn(70, 6)),
        *((f"{LAYER}.self_attn.{x}_proj.weight", parts[x]) for x in ("v", "q", "k")),
        *((f"{LAYER}.mlp.{x}_proj.weight", parts[x]) for x in ("gate", "up")),
        (f"{LAYER}.self_attn.q_norm.weight", torch.randn(6)),
    ]
    tap = ChecksumTap("sglang")
    assert [name for name, _ in tap.through(stream)] == [name for name, _ in stream]
    assert tap.checksums == {
        "model.embed_tokens.weight": tensor_checksum(torch.cat([stream[0][1], torch.zeros(58, 6)])),
        f"{LAYER}.self_attn.qkv_proj.weight": tensor_checksum(torch.cat([parts["q"], parts["k"], parts["v"]])),
        f"{LAYER}.mlp.gate_up_proj.weight": tensor_checksum(torch.cat([parts["gate"], parts["up"]])),
        f"{LAYER}.self_attn.q_norm.weight": tensor_checksum(stream[-1][1]),
    }
    assert tap.bytes_passed == sum(t.nbytes for _, t in stream)


def test_a_stream_that_lacks_a_part_of_a_fused_tensor_is_refused():
    tap = ChecksumTap("sglang")
    with pytest.raises(ValueError, match="qkv_proj"):
        list(tap.through([(f"{LAYER}.self_attn.q_proj.weight", torch.zeros(2, 2))]))


def test_a_comparison_names_what_differs_on_either_side():
    comparison = compare({"a": "1", "b": "2", "c": "3"}, {"a": "1", "b": "x", "d": "4"})
    assert not comparison.equal
    assert (comparison.differing, comparison.missing, comparison.extra) == (("b",), ("c",), ("d",))
    assert "first b" in str(comparison)
    assert compare({"a": "1"}, {"a": "1"}).equal


@given(sizes=st.lists(st.integers(1, 50), max_size=30), limit=st.integers(4, 200))
def test_buckets_keep_every_tensor_in_order_and_within_the_limit(sizes, limit):
    stream = [(f"t{i}", torch.zeros(size)) for i, size in enumerate(sizes)]
    grouped = list(buckets(stream, limit))
    assert [name for bucket in grouped for name, _ in bucket] == [name for name, _ in stream]
    for bucket in grouped:
        assert bucket and (len(bucket) == 1 or sum(t.nbytes for _, t in bucket) <= limit)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    folder = tmp_path / "base"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"old")
    return folder


@settings(max_examples=10)
@given(shapes=st.lists(st.integers(1, 40), min_size=1, max_size=8))
def test_written_versions_hold_the_streams_bits_whatever_the_shard_size(tmp_path_factory, shapes):
    folder = tmp_path_factory.mktemp("weights")
    (folder / "base").mkdir()
    (folder / "base" / "config.json").write_text("{}")
    stream = {f"t{i}": torch.randn(n) for i, n in enumerate(shapes)}
    path = CheckpointWriter(folder / "versions", folder / "base", shard_bytes=128).write(stream.items(), 4)
    found = {}
    for file in path.glob("*.safetensors"):
        with safe_open(file, framework="pt") as shard:
            found |= {name: shard.get_tensor(name) for name in shard.keys()}  # noqa: SIM118
    assert found.keys() == stream.keys()
    assert all(torch.equal(found[name], stream[name]) for name in stream)
    assert (path / "config.json").exists()


def test_only_the_newest_versions_are_kept_and_base_weights_are_not_copied(tmp_path: Path, base: Path):
    writer = CheckpointWriter(tmp_path / "versions", base)
    for version in range(5):
        writer.write([("a", torch.zeros(2))], version)
    kept = sorted(p.name for p in (tmp_path / "versions").iterdir())
    assert kept == [writer.path(v).name for v in range(5 - KEPT_VERSIONS, 5)]
    assert not (writer.path(4) / "model.safetensors").exists()
    writer.close()
    assert not (tmp_path / "versions").exists()


def test_a_stream_that_fails_leaves_no_version_behind(tmp_path: Path, base: Path):
    def failing():
        yield "a", torch.zeros(2)
        raise RuntimeError("the actor died")

    writer = CheckpointWriter(tmp_path / "versions", base)
    with pytest.raises(RuntimeError, match="the actor died"):
        writer.write(failing(), 1)
    assert not writer.path(1).exists()
    assert list((tmp_path / "versions").iterdir()) == []


def test_weights_that_other_machines_read_lie_in_the_run_folder(tmp_path: Path) -> None:
    engine = SimpleNamespace(stream_transport="distributed", stream_transports=("distributed",))
    config = WeightSyncConfig(transport="disk")
    sync = WeightSync(engine, tmp_path, tmp_path / "run", config, other_machines=True)
    assert sync._writer is not None and sync._writer.path(1).is_relative_to(tmp_path / "run")
