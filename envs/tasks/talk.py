"""What tasks with several speakers share: lines, what is private to a seat, feedback that does not quote. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from envs.client.transcript import render_says
from envs.detectors.copying import ngrams
from envs.types import Say, Seat

QUOTE_WORDS = 5
MIN_PRIVATE_WORDS = 4
"""Shorter texts occur by chance and prove no leak."""


@dataclass(frozen=True)
class Line:
    """One turn: what the seat wrote, and what the others perceive of it."""

    seat: Seat
    raw: str
    shown: str


def transcript(lines: Iterable[tuple[str, str]]) -> str:
    """(name, text) pairs as one text for a judge."""
    return render_says(Say(name, text) for name, text in lines)


def only_own(texts: Mapping[Seat, Sequence[str]], public: Sequence[str]) -> dict[Seat, list[str]]:
    """Of each seat's texts, those that neither the public texts nor another seat's texts contain."""
    own: dict[Seat, list[str]] = {}
    for seat, mine in texts.items():
        others = [t for other, theirs in texts.items() if other != seat for t in theirs]
        known = [*public, *others]
        own[seat] = [t for t in mine if len(t.split()) >= MIN_PRIVATE_WORDS and not any(t in k for k in known)]
    return own


def without_quotes(text: str, sources: Iterable[str]) -> str:
    """`text` without the sentences that share five words in a row with a source: advice, but no answer to copy."""
    seen = set().union(*(ngrams(source, QUOTE_WORDS) for source in sources))
    sentences = re.split(r"(?<=[.!?])\s+", text.strip())
    return " ".join(s for s in sentences if not ngrams(s, QUOTE_WORDS) & seen)


def copied_share(text: str, source: str, n: int = 4) -> float:
    """Share of `text`'s word n-grams that `source` has; 0 for texts shorter than n words."""
    own = ngrams(text, n)
    return len(own & ngrams(source, n)) / len(own) if own else 0.0
