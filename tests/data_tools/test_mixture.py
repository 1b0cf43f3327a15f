"""Weighted sources: shares of tokens to within a document, nothing lost, nothing repeated before its turn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.config import validate
from common.errors import ConfigError, UsageError
from data_tools.config import MixtureConfig
from data_tools.merge import merge
from data_tools.mixture import draw_documents
from data_tools.packed import PackedShard
from data_tools.prepare import prepare
from data_tools.publish import PackSettings
from data_tools.repack import repack
from data_tools.verify import verify
from launch import cli
from tests.data_tools.conftest import make_rows

NAMES = ("a", "b", "c")
SHARDS = st.lists(st.tuples(st.integers(0, 2), st.integers(1, 50)), min_size=3, max_size=80)


def drawn(lengths, sources, mixture, seed=0):
    chosen = draw_documents(lengths, sources, NAMES, mixture, seed)
    tokens = np.bincount(sources[chosen], lengths[chosen], minlength=3).astype(int)
    return chosen, tokens


@given(SHARDS, st.tuples(*[st.integers(1, 9)] * 3), st.one_of(st.none(), st.integers(1, 5000)), st.integers(0, 3))
@settings(max_examples=150, deadline=None)
def test_every_source_has_its_share_to_within_one_document(documents, weights, total, seed):
    documents += [(0, 7), (1, 7), (2, 7)]
    sources, lengths = (np.array(column) for column in zip(*documents, strict=True))
    mixture = MixtureConfig(weights=dict(zip(NAMES, weights, strict=True)), tokens=total)
    chosen, tokens = drawn(lengths.astype(np.int32), sources.astype(np.uint16), mixture, seed)
    available = np.bincount(sources, lengths, minlength=3)
    whole = total if total is not None else min(available / weights) * sum(weights)
    for source in range(3):
        exact = whole * weights[source] / sum(weights)
        assert exact - lengths[sources == source].max() - 1 < tokens[source] <= exact + 1e-6
        times = np.bincount(chosen, minlength=len(lengths))[sources == source]
        assert np.ptp(times) <= 1
        if total is None:
            assert times.max() <= 1
    if total is None:
        # The scarcest source is there in full.
        scarcest = int(np.argmin(available / weights))
        assert tokens[scarcest] == available[scarcest]


def test_a_source_without_a_weight_and_a_weight_without_documents_are_errors():
    lengths, sources = np.array([5, 5], np.int32), np.array([0, 1], np.uint16)
    with pytest.raises(UsageError, match="no weight for b"):
        drawn(lengths, sources, MixtureConfig(weights={"a": 1}))
    with pytest.raises(UsageError, match="no document of c"):
        drawn(lengths, sources, MixtureConfig(weights={"a": 1, "b": 1, "c": 1}))
    chosen, tokens = drawn(lengths, sources, MixtureConfig(weights={"a": 0, "b": 1, "c": 0}, tokens=15))
    assert chosen.tolist() == [1, 1, 1] and tokens.tolist() == [0, 15, 0]
    for wrong in ({"a": 0}, {"a": -1}, {"a": float("inf")}, {}):
        with pytest.raises(ConfigError):
            validate(MixtureConfig, {"weights": wrong}, where="test")


@pytest.fixture
def mixed(make_config):
    """A configuration of two sources, `much` with three times the rows of `little`."""
    rows = make_rows(90, source="much") + make_rows(30, seed=1, source="little")
    rules = {name: {"allow_all_trained": True} for name in ("much", "little")}
    weights = {"much": 1, "little": 1}
    return make_config(rows, sources=rules, sequence_length=2048, mixture={"weights": weights}, unit_mb=1)


def test_a_prepared_mixture_is_packed_in_its_shares_and_verified(mixed):
    manifest = prepare(mixed)
    packed = manifest.pack.tokens
    assert packed["little"] == manifest.counts["little"].tokens
    assert packed["little"] - manifest.longest < packed["much"] <= packed["little"]
    verify(mixed.output)
    bins = PackedShard.open(mixed.output)
    assert sum(len(bins.bin(i).token_ids) for i in range(bins.num_bins)) == sum(packed.values())


def test_another_mixture_is_another_packing_of_the_same_tokens(mixed, capsys):
    before = prepare(mixed)
    with pytest.raises(SystemExit) as ended:
        cli.run(
            f"data pack {mixed.output} --sequence-length 2048 --weight much=0 --weight little=2 "
            f"--tokens {3 * before.counts['little'].tokens}".split()
        )
    assert not ended.value.code and "little" in capsys.readouterr().out
    verify(mixed.output)
    manifest = PackedShard.open(mixed.output).manifest
    assert manifest.pack.tokens == {"little": 3 * before.counts["little"].tokens, "much": 0}
    assert manifest.files[".bin"] == before.files[".bin"]
    assert manifest.pack.mixture.weights == {"much": 0, "little": 2}
    plain = repack(mixed.output, PackSettings(2048, seed=0))
    assert plain.pack.documents == plain.documents and plain.pack.mixture is None


def test_jobs_are_mixed_when_they_are_merged(mixed, small_units, tmp_path):
    whole = prepare(mixed)
    parts = []
    for job in range(2):
        part = mixed.model_copy(update={"output": tmp_path / f"part{job}", "shard_job": job, "shard_jobs": 2})
        assert prepare(part).pack.mixture is None
        parts.append(part.output)
    merged = merge(parts, tmp_path / "merged")
    assert merged.pack == whole.pack and merged.files == whole.files


def test_a_mixture_without_packing_is_refused(mixed):
    raw = mixed.model_dump() | {"sequence_length": None}
    with pytest.raises(ConfigError, match="give sequence_length"):
        validate(type(mixed), raw, where="test")
