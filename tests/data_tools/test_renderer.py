"""The renderer's invariants, and the batch renderer against it."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jinja2 import Environment
from tokenizers import Tokenizer

from common.errors import DataError
from data_tools.assemble import ROLE_SHIFT, TRAIN_BIT, BatchRenderer
from data_tools.columns import Columns
from data_tools.conversation import ChatMessage
from data_tools.encoding import FastokensEncoder, HFEncoder
from data_tools.renderer import LLAMA3, ROLES, Renderer
from data_tools.tokenizer import CHATML_JINJA, SPECIAL_TOKENS

CONTENT = st.one_of(
    st.text(max_size=40),
    st.lists(
        st.sampled_from([*SPECIAL_TOKENS, "<|im_start|", "user", "\n", " ", "e\u0301", "👩‍💻", "\x00"]), max_size=6
    ).map("".join),
)
MESSAGES = st.lists(st.builds(ChatMessage, st.sampled_from(ROLES), CONTENT), min_size=1, max_size=6)
QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def llama(tokenizer) -> Renderer:
    """The same tokenizer with Llama-3's special tokens."""
    copy = Tokenizer.from_str(tokenizer.to_str())
    copy.add_special_tokens(["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"])
    return Renderer(copy, LLAMA3)


@given(MESSAGES, st.data())
@QUICK
def test_rendering_fewer_messages_is_a_prefix_token_for_token(renderer, llama, messages, data):
    for r in (renderer, llama):
        whole = r.render(messages)
        n = data.draw(st.integers(0, len(messages)))
        part = r.render(messages[:n])
        assert whole.ids[: len(part.ids)] == part.ids
        assert whole.train[: len(part.ids)] == part.train
        if n < len(messages):
            prompt = r.prompt_ids(messages[:n], messages[n].role)
            assert whole.ids[: len(prompt)] == prompt


def slow_oracle(tokenizer: Tokenizer, messages, trained=("assistant",)):
    """Tokens and mask by hand, from the text of the template: (id, is target) pairs."""
    plain = Tokenizer.from_str(tokenizer.to_str())
    plain.encode_special_tokens = True
    out = []
    for m in messages:
        target = m.role in trained
        out.append((tokenizer.token_to_id("<|im_start|>"), False))
        out += [(i, False) for i in plain.encode(m.role + "\n").ids]
        out += [(i, target) for i in plain.encode(m.content).ids]
        out.append((tokenizer.token_to_id("<|im_end|>"), target))
        out += [(i, False) for i in plain.encode("\n").ids]
    return out


@given(MESSAGES)
@QUICK
def test_the_mask_is_the_content_and_end_token_of_trained_roles_by_an_independent_oracle(
    renderer, tokenizer, messages
):
    rendered = renderer.render(messages)
    assert list(zip(rendered.ids, rendered.train, strict=True)) == slow_oracle(tokenizer, messages)


@given(MESSAGES)
@QUICK
def test_special_token_text_in_content_never_becomes_a_control_token(renderer, tokenizer, messages):
    ids = renderer.render(messages).ids
    assert ids.count(tokenizer.token_to_id("<|im_start|>")) == len(messages)
    assert ids.count(tokenizer.token_to_id("<|im_end|>")) == len(messages)
    assert ids.count(tokenizer.token_to_id("<|endoftext|>")) == 0


# A header's newline and leading white space of the content would be one token: see the renderer's docstring.
UNMERGED = st.text(st.characters(codec="utf-8", exclude_characters="<|")).filter(lambda t: not t[:1].isspace())


@given(st.lists(st.builds(ChatMessage, st.sampled_from(ROLES), UNMERGED)))
@QUICK
def test_it_equals_the_tokenizers_own_chat_template(renderer, tokenizer, messages):
    template = Environment().from_string(CHATML_JINJA)
    text = template.render(messages=[{"role": m.role, "content": m.content} for m in messages])
    assert renderer.render(messages).ids == tokenizer.encode(text, add_special_tokens=False).ids


@given(st.lists(MESSAGES, min_size=1, max_size=5), st.booleans())
@QUICK
def test_a_batch_equals_the_renderer_row_by_row(renderer, llama, rows, end):
    for r in (renderer, llama):
        encoder = HFEncoder(r.plain)
        batch = BatchRenderer(r, encoder, ("assistant",), end_of_document=7 if end else None).render(Columns.of(rows))
        for i, row in enumerate(rows):
            expected = r.render(row)
            span = slice(batch.row_starts[i], batch.row_starts[i + 1] - int(end))
            assert batch.tokens[span].tolist() == expected.ids
            assert (batch.mask[span] & TRAIN_BIT).astype(bool).tolist() == expected.train
            assert (batch.mask[span] >> ROLE_SHIFT).tolist() == expected.roles
            assert batch.trained_tokens[i] == sum(expected.train)
            if end:
                assert batch.tokens[batch.row_starts[i + 1] - 1] == 7
                assert batch.mask[batch.row_starts[i + 1] - 1] == 0


@given(st.lists(CONTENT, max_size=20))
@QUICK
def test_both_encoders_agree(renderer, texts):
    expected, found = HFEncoder(renderer.plain).encode(texts), FastokensEncoder(renderer.plain).encode(texts)
    assert [found[i].tolist() for i in range(len(texts))] == [expected[i].tolist() for i in range(len(texts))]


def test_a_tokenizer_without_the_end_token_is_refused(tokenizer):
    with pytest.raises(DataError, match="is not one token"):
        Renderer(tokenizer, LLAMA3)


def test_the_fingerprint_changes_with_template_and_tokenizer(renderer, llama):
    assert renderer.fingerprint != llama.fingerprint
