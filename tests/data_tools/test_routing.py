"""Every source of the corpus has its rule, by exact name."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import UsageError
from data_tools.column_rules import apply_rules
from data_tools.columns import Columns
from data_tools.conversation import ROLES, ChatMessage
from data_tools.routing import CORPUS_SOURCES, Routing, SourceRule, apply_rule

S, U, A = (lambda c, r=r: ChatMessage(r, c) for r in ("system", "user", "assistant"))


def test_the_corpus_has_its_64_sources():
    assert len(CORPUS_SOURCES) == 64
    swapped = [n for n, r in CORPUS_SOURCES.items() if r.swap]
    assert len(swapped) == 46 and "convokit_casino" in swapped and "tom_hitom" not in swapped
    assert CORPUS_SOURCES["psych101"].keep_last_turns == 20


def test_an_unknown_source_is_an_error_that_names_the_nearest_never_a_guess():
    routing = Routing()
    with pytest.raises(UsageError, match="nearest known name is 'wildchat'"):
        routing.rule("wildchatt")
    with pytest.raises(UsageError, match="no routing rule"):
        routing.rule("my_chat_corpus")
    assert Routing({"my_chat_corpus": SourceRule()}).rule("my_chat_corpus") == SourceRule()


def test_swap_puts_the_human_into_the_assistant_slot():
    messages = [S("grounding"), U("human opens"), A("model"), U("human")]
    swapped = apply_rule(CORPUS_SOURCES["wildchat"], messages)
    assert swapped == [S("grounding"), A("human opens"), U("model"), A("human")]


def test_no_swap_adds_an_empty_system_message_when_there_is_none():
    rule = CORPUS_SOURCES["tom_hitom"]
    assert apply_rule(rule, [U("q"), A("a")]) == [S(""), U("q"), A("a")]
    assert apply_rule(rule, [S("s"), U("q")]) == [S("s"), U("q")]
    assert apply_rule(rule, [S("s"), U("q")], strip_system=True) == [U("q")]


def test_psych101_folds_all_but_the_last_turns_into_untrained_context():
    turns = [(A if i % 2 else U)(f"t{i}") for i in range(30)]
    out = apply_rule(CORPUS_SOURCES["psych101"], [S("s"), *turns])
    assert [m.role for m in out[:2]] == ["system", "user"]
    assert out[1].content == "\n".join(f"t{i}" for i in range(11))
    assert len(out) == 21 and [m.content for m in out[2:]] == [f"t{i}" for i in range(11, 30)]
    assert out[2].role == "user" and out[3].role == "assistant"  # t11 was the assistant's, t12 the human's
    short = [S("s"), *turns[:20]]
    assert [m.content for m in apply_rule(CORPUS_SOURCES["psych101"], short)] == [m.content for m in short]


RULES = {
    "swap": SourceRule(swap=True),
    "fold": SourceRule(swap=True, keep_last_turns=2),
    "system": SourceRule(add_empty_system=True),
    "plain": SourceRule(),
}
MESSAGES = st.lists(st.builds(ChatMessage, st.sampled_from(ROLES), st.text("ab", max_size=3)), min_size=1, max_size=6)


@given(st.lists(st.tuples(st.sampled_from(sorted(RULES)), MESSAGES), max_size=8), st.booleans())
@settings(max_examples=100, deadline=None)
def test_rules_applied_to_a_batch_give_the_rows_that_they_give_one_by_one(rows, strip_system):
    sources = [source for source, _ in rows]
    out = apply_rules(RULES, Columns.of([m for _, m in rows], sources), strip_system=strip_system)
    assert list(out.sources) == sources
    for i, (source, messages) in enumerate(rows):
        assert out.messages(i) == list(apply_rule(RULES[source], messages, strip_system=strip_system))


@given(st.lists(MESSAGES, min_size=1, max_size=6), st.data())
@settings(max_examples=50, deadline=None)
def test_rows_taken_from_columns_are_those_rows(rows, data):
    chosen = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=8))
    taken = Columns.of(rows, [str(i) for i in range(len(rows))]).take(np.array(chosen, np.int64))
    assert [taken.messages(i) for i in range(len(taken))] == [rows[i] for i in chosen]
    assert list(taken.sources) == [str(i) for i in chosen]
