"""A critic who knows the answer advises; what it quotes of the answer never reaches the policy."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from envs.detectors.copying import ngrams
from envs.tasks.quoting import QUOTE, copied_share, without_quotes

GOLD = "Nobody would notice, and the library is full."
TEXTS = st.lists(st.sampled_from(["a", "b", "c", "d", "A", "it's", ",", ".", "é"]), max_size=24).map(" ".join)


def test_quotations_are_cut_and_short_agreements_stay() -> None:
    assert without_quotes("Say nobody would notice and THE library, please", [GOLD]) == "Say …, please"
    assert without_quotes("the library is nice", [GOLD]) == "the library is nice"
    assert without_quotes("", [GOLD]) == "" and without_quotes("x", [""]) == without_quotes("x", []) == "x"


def test_neighbouring_quotations_are_one_mark_and_advice_that_only_quotes_is_empty() -> None:
    assert without_quotes("Say: a b c d e f g h.", ["a b c d", "e f g h"]) == "Say: …."
    assert without_quotes(f"“{GOLD}”", [GOLD]) == ""


@given(TEXTS, TEXTS)
def test_no_run_of_words_of_the_source_is_left(text: str, source: str) -> None:
    for piece in without_quotes(text, [source]).split("…"):
        assert not ngrams(piece, QUOTE) & ngrams(source, QUOTE)
    assert 0.0 <= copied_share(text, source) <= 1.0
