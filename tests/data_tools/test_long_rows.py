"""Rows longer than the sequence length: truncated, split or dropped, never silently."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_tools.assemble import TRAIN_BIT, BatchRenderer
from data_tools.columns import Columns
from data_tools.conversation import ChatMessage
from data_tools.encoding import HFEncoder
from data_tools.long_rows import shorten

CONVERSATIONS = st.lists(
    st.builds(ChatMessage, st.sampled_from(["user", "assistant"]), st.text("ab 12", max_size=60)),
    min_size=1,
    max_size=8,
)


@pytest.fixture(scope="module")
def batch_renderer(renderer):
    return BatchRenderer(renderer, HFEncoder(renderer.plain), ("assistant",), end_of_document=None)


@given(st.booleans(), CONVERSATIONS, st.integers(24, 120), st.sampled_from(["truncate", "split", "drop"]))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_pieces_fit_have_a_target_and_lose_no_target(batch_renderer, grounded, turns, limit, policy):
    head = [ChatMessage("system", "who")] if grounded else []
    doc = batch_renderer.render(Columns.of([[*head, *turns]]))
    pieces = shorten(policy, doc.tokens, doc.mask, doc.message_starts, limit)
    for tokens, mask in pieces:
        assert 0 < len(tokens) <= limit and len(tokens) == len(mask)
        assert (mask & TRAIN_BIT).any()
    trained = doc.tokens[(doc.mask & TRAIN_BIT).astype(bool)].tolist()
    kept = [t for tokens, mask in pieces for t in tokens[(mask & TRAIN_BIT).astype(bool)].tolist()]
    if policy == "split":
        assert kept == trained
        context = doc.message_starts[1] if grounded and doc.message_starts[1] <= limit // 2 else 0
        assert all(tokens[:context].tolist() == doc.tokens[:context].tolist() for tokens, _ in pieces)
    elif policy == "truncate":
        assert kept == trained[: len(kept)]
    else:
        assert not pieces


def test_split_cuts_between_messages(batch_renderer, renderer):
    turns = [ChatMessage("user" if i % 2 else "assistant", "a b 1") for i in range(10)]
    doc = batch_renderer.render(Columns.of([turns]))
    one = len(renderer.message_ids(turns[0])) + len(renderer.message_ids(turns[1]))
    pieces = shorten("split", doc.tokens, doc.mask, doc.message_starts, 2 * one)
    assert [len(tokens) for tokens, _ in pieces] == [2 * one, 2 * one, one]
    assert np.concatenate([tokens for tokens, _ in pieces]).tolist() == doc.tokens.tolist()
