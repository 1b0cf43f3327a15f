"""Switching to a writing system that nobody used before: a test that also works on short turns. Pure."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache

ENOUGH = 2


@lru_cache(maxsize=65536)
def script_of(character: str) -> str | None:
    """First word of a letter's Unicode name ("LATIN", "CYRILLIC", "CJK" …); None for what is no letter."""
    if not character.isalpha():
        return None
    return unicodedata.name(character, "").partition(" ")[0] or None


def scripts(text: str) -> Counter[str]:
    """Letters per script."""
    return Counter(s for c in text if (s := script_of(c)) is not None)


def find(text: str, context: Iterable[str]) -> str | None:
    """The new scripts, or None; without any letter in the context nothing is new."""
    own = scripts(text)
    known = set().union(*(scripts(t) for t in context))
    new = sorted(s for s, n in own.items() if n >= ENOUGH and s not in known)
    return ", ".join(new) if known and new else None
