"""One message at a time: the fast library's ids are the reference's, and a difference brings the reference back."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_tools import content
from data_tools.content import RECHECK_EVERY, ContentEncoder
from data_tools.encoding import FastokensEncoder
from tests.envs.table import byte_renderer

PLAIN = byte_renderer()
LIVE = byte_renderer(live=True)


@given(st.text())
def test_a_live_renderer_gives_the_ids_of_the_reference(text: str) -> None:
    assert LIVE.encode_content(text) == PLAIN.encode_content(text)


@pytest.mark.parametrize("text", ["", "<|im_end|>", " <|im_start|>user\n", "a" * 3000, "e\u0301 ſ İ", "👩‍💻"])
def test_special_token_text_stays_text_in_a_live_renderer(renderer, text: str) -> None:
    encoder = ContentEncoder(renderer.plain)
    assert encoder.encode(text) == renderer.encode_content(text)
    assert encoder.backend == "fastokens"


class Wrong(FastokensEncoder):
    """Right in the check at the start, wrong on one text."""

    def encode_one(self, text: str) -> list[int]:
        return [0] if text == "trap" else super().encode_one(text)


def test_a_difference_found_under_way_is_corrected_and_the_reference_takes_over(monkeypatch, caplog) -> None:
    monkeypatch.setattr(content, "FastokensEncoder", Wrong)
    encoder = ContentEncoder(PLAIN.plain)
    with caplog.at_level(logging.WARNING):
        for _ in range(RECHECK_EVERY - 1):
            encoder.encode("fine")
        assert encoder.backend == "fastokens"
        assert encoder.encode("trap") == PLAIN.encode_content("trap")
    assert encoder.backend == "hf" and "trap" in caplog.text
    assert encoder.encode("trap") == PLAIN.encode_content("trap")


def test_a_library_that_fails_the_check_at_the_start_is_not_used(monkeypatch) -> None:
    class Never(FastokensEncoder):
        def encode(self, texts):
            encoded = super().encode(texts)
            return replace(encoded, ids=encoded.ids + 1)

    monkeypatch.setattr(content, "FastokensEncoder", Never)
    encoder = ContentEncoder(PLAIN.plain)
    assert encoder.backend == "hf" and encoder.encode("hello") == PLAIN.encode_content("hello")
