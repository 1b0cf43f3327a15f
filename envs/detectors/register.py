"""An essay where a person would talk: two or more marks of formatting in one turn. Pure."""

from __future__ import annotations

import re

MARKS = (
    re.compile(r"^#{1,6} \S", re.M),
    re.compile(r"^\s*(?:[-*•]|\d{1,2}[.)]) \S.*\n\s*(?:[-*•]|\d{1,2}[.)]) \S", re.M),
    re.compile(r"\*\*[^*\n]+\*\*"),
    re.compile(r"^\|.*\|\s*$", re.M),
    re.compile(r"^\s*```", re.M),
    re.compile(r"^\s*(?:---+|\*\*\*+)\s*$", re.M),
)
ENOUGH = 2


def find(text: str) -> str | None:
    """How many marks, or None below two (kinds, or three of one kind)."""
    counts = [len(mark.findall(text)) for mark in MARKS]
    kinds, most = sum(n > 0 for n in counts), max(counts)
    return f"{sum(counts)} marks of {kinds} kinds" if kinds >= ENOUGH or most > ENOUGH else None
