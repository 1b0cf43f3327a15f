"""Decontamination and near-duplicate removal find what overlaps, and only that; prepare leaves it out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import UsageError
from common.seeds import derive_rng
from data_tools.decontaminate import Reference, ReferenceIndex, decontaminate, references_from
from data_tools.near_duplicates import find_near_duplicates
from data_tools.prepare import prepare
from data_tools.removal import write_removals
from data_tools.shingles import ngram_hashes, signature, word_hashes, words
from tests.data_tools.conftest import write_jsonl

WORDS = [f"w{i}" for i in range(5000)]


def sentence(seed: int, count: int) -> list[str]:
    return derive_rng(seed, "sentence").choices(WORDS, k=count)


def row(*contents: str, **fields) -> dict:
    roles = ("user", "assistant")
    messages = [{"role": roles[i % 2], "content": c} for i, c in enumerate(contents)]
    return {"data_source": "chat", "messages": messages, **fields}


@given(st.lists(st.text(max_size=12), max_size=30), st.integers(1, 6))
@settings(max_examples=100, deadline=None)
def test_ngram_hashes_are_equal_exactly_where_the_words_are(texts, n):
    text = " ".join(texts)
    found = words(text)
    grams = [tuple(found[i : i + n]) for i in range(len(found) - n + 1)]
    hashes = ngram_hashes(word_hashes(text), n)
    assert len(hashes) == len(grams)
    assert len(set(hashes.tolist())) == len(set(grams))
    by_gram = dict(zip(grams, hashes.tolist(), strict=True))
    assert [by_gram[g] for g in grams] == hashes.tolist()


def test_signatures_estimate_the_jaccard_similarity():
    base = sentence(0, 400)
    for kept in (400, 300, 200):
        other = base[:kept] + sentence(1, 400 - kept)
        a, b = ({tuple(t[i : i + 5]) for i in range(396)} for t in (base, other))
        estimate = (signature(" ".join(base)) == signature(" ".join(other))).mean()
        assert abs(estimate - len(a & b) / len(a | b)) < 0.12
    assert signature("").shape == (128,)


def test_a_common_13_gram_is_found_through_case_and_punctuation_and_12_words_are_not():
    secret = sentence(2, 40)
    index = ReferenceIndex([Reference("eval:1", " ".join(secret))])
    hidden = " ".join(sentence(3, 20)) + " -- " + ", ".join(secret[5:18]).upper() + "! " + " ".join(sentence(4, 20))
    found = index.common_ngram(hidden)
    assert found and found[0].name == "eval:1" and found[1] == " ".join(secret[5:18])
    assert index.common_ngram(" ".join(sentence(3, 20) + secret[5:17] + sentence(4, 20))) is None


def test_rows_that_overlap_are_listed_and_left_out_by_prepare(tmp_path, make_config):
    secret, short = " ".join(sentence(5, 60)), " ".join(sentence(6, 10))
    clean = [row(" ".join(sentence(100 + i, 30)), "fine answer here", id=f"c{i}") for i in range(20)]
    near = " ".join([*sentence(6, 10)[:10]]).upper()
    dirty = [row("look: " + secret[50:], "a b", id="gram"), row(near, "a b", id="near")]
    config = make_config([*clean[:10], *dirty, *clean[10:]])
    corpus = tmp_path / "corpus.jsonl"
    (tmp_path / "eval.txt").write_text(f"{secret}\n\n{short}\n\nyes")
    references = references_from([tmp_path / "eval.txt"])
    report = decontaminate([corpus], references)
    assert [(r.id, r.reason) for r in report.removals] == [("gram", "13-gram"), ("near", "near-identical")]
    assert report.rows == {"chat": 22} and report.short_references == 1
    assert report.by_source == {"chat": {"13-gram": 1, "near-identical": 1}}
    write_removals(tmp_path / "remove.jsonl", report.removals)
    excluding = config.model_copy(update={"exclude": (tmp_path / "remove.jsonl",)})
    manifest = prepare(excluding)
    assert manifest.counts["chat"].rows == 20 and manifest.counts["chat"].excluded == 2
    write_removals(tmp_path / "remove.jsonl", report.removals[:1])  # the same file, written anew
    assert prepare(excluding.model_copy(update={"overwrite": True})).counts["chat"].excluded == 1
    with pytest.raises(UsageError, match="no reference"):
        ReferenceIndex([])


def test_near_duplicates_keep_the_first_row(tmp_path):
    base = sentence(7, 200)
    changed = [*base[:100], "other", *base[101:]]
    rows = [row(" ".join(sentence(50 + i, 100)), id=f"r{i}") for i in range(30)]
    rows[3] = row(" ".join(base), id="first")
    rows[10] = row(" ".join(base), id="same")
    rows[20] = row(" ".join(changed), id="changed")
    found = find_near_duplicates([write_jsonl(tmp_path / "a.jsonl", rows)])
    assert [(r.id, r.reference) for r in found] == [("same", "first"), ("changed", "first")]
    assert found[0].detail == "similarity 1.00"
    assert find_near_duplicates([write_jsonl(tmp_path / "b.jsonl", rows[:3])]) == []
    assert np.array_equal(signature("x y"), signature("X, y!"))
