"""Copying earlier turns or the reference: most of a turn's 8-grams were already there. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

N = 8
MOST_SHARED = 0.5
WORD = re.compile(r"\w+(?:['’]\w+)?")


def ngrams(text: str, n: int) -> set[tuple[str, ...]]:
    """All n-grams of lower-case words."""
    words = WORD.findall(text.lower())
    return {tuple(words[i : i + n]) for i in range(len(words) - n + 1)}


def find(text: str, sources: Iterable[str]) -> str | None:
    """The share that was copied, or None; turns below eight words are never judged."""
    own = ngrams(text, N)
    if not own:
        return None
    seen = set().union(*(ngrams(source, N) for source in sources))
    share = len(own & seen) / len(own)
    return f"{share:.2f} of its 8-grams were already there" if share > MOST_SHARED else None
