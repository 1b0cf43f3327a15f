"""A fast tokenizer that is wrong somewhere never reaches a shard."""

from __future__ import annotations

from dataclasses import replace

import pytest

from common.errors import DataError
from data_tools import encoding, worker
from data_tools.prepare import prepare
from data_tools.selfcheck import EncoderMismatch, GuardedEncoder, adversarial_texts, self_check
from data_tools.tokenizer import SPECIAL_TOKENS
from tests.data_tools.conftest import make_rows, shard_bytes


class WrongOn(encoding.FastokensEncoder):
    """fastokens with another first id for every text that contains `trap`."""

    trap = "garden"
    right_calls = 0

    def encode(self, texts):
        encoded = super().encode(texts)
        if self.right_calls:
            self.right_calls -= 1
            return encoded
        ids = encoded.ids.copy()
        for i, text in enumerate(texts):
            if self.trap in text:
                ids[encoded.starts[i]] ^= 1
        return replace(encoded, ids=ids)


@pytest.fixture
def reference(renderer):
    return encoding.HFEncoder(renderer.plain)


def test_the_real_library_passes_on_many_adversarial_texts(renderer, reference):
    texts = adversarial_texts(SPECIAL_TOKENS, per_kind=400, seed=7)
    assert len(texts) > 3000
    check = self_check(reference, encoding.FastokensEncoder(renderer.plain), texts)
    assert check.backend == "fastokens" and check.mismatch is None and check.strings == len(texts)


def test_a_difference_at_the_start_falls_back_or_stops(renderer, reference):
    wrong = WrongOn(renderer.plain)
    check = self_check(reference, wrong, ["fine", "the garden"])
    assert check.backend == "hf" and check.mismatch == "the garden"
    with pytest.raises(DataError, match="differ on 'the garden'"):
        self_check(reference, wrong, ["the garden"], may_fall_back=False)
    assert self_check(reference, None, ["the garden"]).strings == 0


def test_prepare_falls_back_only_where_it_may(make_config, monkeypatch, tmp_path):
    monkeypatch.setattr(worker, "FastokensEncoder", WrongOn)
    config = make_config(make_rows(50))
    manifest = prepare(config)
    assert manifest.tokenizer.backend == "hf" and "garden" in manifest.tokenizer.mismatch
    for fields in ({"strict": True}, {"backend": "fastokens"}):
        worker._load_fast.cache_clear()
        with pytest.raises(DataError, match="differ on"):
            prepare(config.model_copy(update={**fields, "output": tmp_path / "strict" / "shard"}))


@pytest.fixture(autouse=True)
def fresh_tools():
    worker._load_fast.cache_clear()
    yield
    worker._load_fast.cache_clear()


def test_every_batch_is_sampled_again(renderer, reference):
    guarded = GuardedEncoder(WrongOn(renderer.plain), reference, seed=0)
    encoded = guarded.encode(["apple"] * 10)
    assert len(encoded) == 10 and {tuple(encoded[i]) for i in range(10)} == {tuple(reference.encode(["apple"])[0])}
    with pytest.raises(EncoderMismatch):
        guarded.encode(["garden"] * 10)
    assert len(guarded.encode([])) == 0


def test_a_unit_that_fails_its_recheck_is_done_again_with_the_reference(make_config, tmp_path, monkeypatch):
    expected = make_config(make_rows(50), backend="hf", output=tmp_path / "hf" / "shard")
    prepare(expected)
    monkeypatch.setattr(worker, "FastokensEncoder", WrongOn)
    monkeypatch.setattr(WrongOn, "trap", " ")
    monkeypatch.setattr(WrongOn, "right_calls", 1)  # the check at the start
    config = make_config()
    manifest = prepare(config)
    assert manifest.tokenizer.units_redone == 1 and manifest.tokenizer.backend == "fastokens"
    assert shard_bytes(config.output) == shard_bytes(expected.output)
    worker._load_fast.cache_clear()
    with pytest.raises(DataError, match="differ on"):
        prepare(config.model_copy(update={"strict": True, "output": tmp_path / "strict" / "shard"}))
