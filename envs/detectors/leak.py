"""Giving away text that was marked hidden: two shared 5-grams. Only text that the caller marks counts. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from envs.detectors.copying import ngrams

N = 5
ENOUGH = 2


def find(text: str, hidden: Iterable[str]) -> str | None:
    """A shared phrase, or None."""
    own = ngrams(text, N)
    for secret in hidden:
        shared = own & ngrams(secret, N)
        if len(shared) >= ENOUGH:
            return " ".join(min(shared))
    return None
