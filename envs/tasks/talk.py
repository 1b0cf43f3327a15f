"""What tasks with several speakers share: lines, their transcript, and what is private to a seat. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from envs.client.transcript import render_says
from envs.types import Say, Seat

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
