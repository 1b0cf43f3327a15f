"""Is the fast tokenizer exactly the reference? Asked before every run, and again of a sample of every batch.

The start-up check compares ids on built-in adversarial text and on rows of the input. A start sample cannot hold
every rare code point, so `GuardedEncoder` re-encodes a few texts of every batch with the reference; a difference
raises `EncoderMismatch`, and the whole unit of work is done again with the reference.
"""

from __future__ import annotations

import functools
import random
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from common.errors import DataError
from common.seeds import derive_rng
from data_tools.encoding import Encoded, Encoder, reference_without_threads

RECHECK_TEXTS, RECHECK_EVERY = 4, 8192
"""Of every batch, 4 texts and one in 8192 are encoded by both libraries: the reference takes 60 times as long."""
RECHECK_MAX_CHARS = 20_000


class EncoderMismatch(Exception):
    """The fast tokenizer gave other ids than the reference."""

    def __init__(self, text: str) -> None:
        self.text = text
        super().__init__(f"{text[:60]!r}")


@dataclass(frozen=True)
class SelfCheck:
    """Result of the start-up check, for the manifest."""

    backend: str
    version: str
    reference: str
    strings: int
    mismatch: str | None
    """The first differing text, when the fast library was refused."""


def self_check(
    reference: Encoder, fast: Encoder | None, texts: Sequence[str], *, may_fall_back: bool = True
) -> SelfCheck:
    """Which encoder to use: the fast one, if there is one and it passes. DataError when it may not fall back.

    `texts` are rows of the input and `adversarial_texts`.
    """
    if fast is None:
        return SelfCheck(reference.name, reference.version, reference.version, 0, None)
    different = first_difference(fast, reference, texts)
    if different is None:
        return SelfCheck(fast.name, fast.version, reference.version, len(texts), None)
    if not may_fall_back:
        raise mismatch_error(different)
    return SelfCheck(reference.name, reference.version, reference.version, len(texts), different[:200])


def mismatch_error(text: str) -> DataError:
    """The fast tokenizer is wrong about `text` and falling back was not allowed."""
    return DataError(
        f"fastokens and Hugging Face tokenizers differ on {text[:60]!r}",
        where="tokenizer self-check",
        fix="use backend: hf, or backend: auto without strict",
    )


def first_difference(encoder: Encoder, reference: Encoder, texts: Sequence[str]) -> str | None:
    """The first text that the two encode differently, or None."""
    found, expected = encoder.encode(texts), reference.encode(texts)
    return next((text for i, text in enumerate(texts) if not np.array_equal(found[i], expected[i])), None)


class GuardedEncoder:
    """The fast encoder, with a seeded sample of every batch compared to the reference."""

    def __init__(self, fast: Encoder, reference: Encoder, seed: int) -> None:
        self.name, self.version = fast.name, fast.version
        self._fast, self._reference = fast, reference
        self._rng = derive_rng(seed, "recheck")

    def encode(self, texts: Sequence[str]) -> Encoded:
        """Ids of the fast encoder. Raises EncoderMismatch when a sampled text differs."""
        encoded = self._fast.encode(texts)
        if texts:
            picks = [self._rng.randrange(len(texts)) for _ in range(RECHECK_TEXTS + len(texts) // RECHECK_EVERY)]
            picked = {i: text for i in picks if len(text := texts[i]) <= RECHECK_MAX_CHARS}
            with reference_without_threads():  # waking them takes longer than a few texts
                expected = self._reference.encode(list(picked.values()))
            for k, (i, text) in enumerate(picked.items()):
                if not np.array_equal(encoded[i], expected[k]):
                    raise EncoderMismatch(text)
        return encoded


def adversarial_texts(specials: Sequence[str], *, per_kind: int = 40, seed: int = 0) -> list[str]:
    """Text on which tokenizer libraries are known to disagree, from a fixed seed."""
    rng = derive_rng(seed, "adversarial")
    texts = [
        "",
        " ",
        "\n",
        "\x00",
        "a" * 3000,
        " " * 3000,
        "\n" * 500,
        "-=" * 2000,
        "1" * 1000,
        "\t-D.",
        "İstanbul ſK",
    ]
    for make in (_combining, _whitespace, _specials, _scripts, _contractions, _emoji, _controls, _decomposed):
        texts += [make(rng, specials) for _ in range(per_kind)]
    return texts


def _draw(rng: random.Random, alphabet: Sequence[str], longest: int) -> str:
    return "".join(rng.choice(alphabet) for _ in range(rng.randint(1, longest)))


_SPACES = [
    " ",
    "  ",
    "\n",
    "\r\n",
    "\r",
    "\t",
    "\x0b",
    "\x0c",
    "\x85",
    "\xa0",
    "\u2028",
    "\u3000",
    "\u200b",
    "a",
    "7",
    ".",
]
_EMOJI = ["👍", "🏽", "👩", "\u200d", "💻", "🇫", "🇷", "❤", "\ufe0f", "🫨", "x", " "]


@functools.cache
def _marks() -> list[str]:
    # U+0898 to U+089F are newer than some normalization tables: libraries order them differently.
    return [chr(c) for c in range(0x300, 0x20000) if unicodedata.combining(chr(c)) or 0x898 <= c < 0x8A0]


def _combining(rng: random.Random, specials: Sequence[str]) -> str:
    return "".join(rng.choice("aeoঅא") + _draw(rng, _marks(), 6) for _ in range(3))


def _whitespace(rng: random.Random, specials: Sequence[str]) -> str:
    return _draw(rng, _SPACES, 24)


def _specials(rng: random.Random, specials: Sequence[str]) -> str:
    pieces = [*specials, *(s[:-1] for s in specials), "<|", "|>", " ", "\n", "user", "é"]
    return _draw(rng, pieces, 8)


def _scripts(rng: random.Random, specials: Sequence[str]) -> str:
    blocks = (
        (0x80, 0x7FF),
        (0x800, 0xD7FF),
        (0xE000, 0xFFFD),
        (0x10000, 0x1FAFF),
        (0x4E00, 0x9FFF),
        (0xAC00, 0xD7A3),
    )
    low, high = rng.choice(blocks)
    return "".join(chr(rng.randint(low, high)) for _ in range(rng.randint(1, 30)))


def _contractions(rng: random.Random, specials: Sequence[str]) -> str:
    return _draw(rng, ["I", "we", "'", "’", "s", "S", "'LL", "'re", "d", "t", " ", "\t", "-", "42", "_", "\n"], 24)


def _emoji(rng: random.Random, specials: Sequence[str]) -> str:
    return _draw(rng, _EMOJI, 14)


def _controls(rng: random.Random, specials: Sequence[str]) -> str:
    return "".join(chr(rng.choice([rng.randrange(32), rng.randrange(0x7F, 0xA0), rng.randrange(0xE000, 0xE100), 97]))
                   for _ in range(rng.randint(1, 20)))  # fmt: skip


def _decomposed(rng: random.Random, specials: Sequence[str]) -> str:
    return unicodedata.normalize("NFD", _draw(rng, ["é", "ñ", "ệ", "한", "글", "が", "Å", "ữ", " ", "x"], 20))
