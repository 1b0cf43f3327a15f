"""ToMBench's own answer rules (zhchen18/ToMBench @4f491f0, `get_results.py`), quirks included. Pure.

Quirks kept on purpose: "[[A]]" anywhere wins over any other; else the last capital A to D anywhere counts ("Dan" is
D); an answer without one is A.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

LETTERS = "ABCD"


def extract_letter(response: str) -> str:
    """The letter that the authors read."""
    for letter in LETTERS:
        if f"[[{letter}]]" in response:
            return letter
    return next((c for c in reversed(response) if c in LETTERS), "A")


def majority(votes: Sequence[str]) -> str:
    """The most frequent of several runs; the earliest among equals."""
    return Counter(votes).most_common(1)[0][0]
