"""Degenerate repetition within one turn: repeated 4-grams, or text that compresses far too well. Pure."""

from __future__ import annotations

import zlib
from collections import Counter

MIN_WORDS = 20
N = 4
MOST_DUPLICATES = 0.25
MOST_COMPRESSION = 4.0


def find(text: str) -> str | None:
    """The measure that is too high, or None; short turns are never judged."""
    words = text.lower().split()
    if len(words) < MIN_WORDS:
        return None
    grams = Counter(tuple(words[i : i + N]) for i in range(len(words) - N + 1))
    duplicates = 1 - len(grams) / sum(grams.values())
    if duplicates > MOST_DUPLICATES:
        return f"{duplicates:.2f} of its 4-grams are repeats"
    data = text.encode()
    ratio = len(data) / len(zlib.compress(data, 9))
    return f"compresses {ratio:.1f} times" if ratio > MOST_COMPRESSION else None
