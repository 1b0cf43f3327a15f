"""What a text takes over from another, word for word: how much of it, and what is left without it. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from envs.detectors.copying import WORD, ngrams

QUOTE = 4
"""Words in a row that make a quotation."""


def copied_share(text: str, source: str, n: int = 4) -> float:
    """Share of `text`'s word n-grams that `source` has; 0 for texts shorter than n words."""
    own = ngrams(text, n)
    return len(own & ngrams(source, n)) / len(own) if own else 0.0


def without_quotes(text: str, sources: Iterable[str]) -> str:
    """`text` with "…" for every run of `QUOTE` or more words of a source: advice, but no answer to copy.

    Empty where nothing else is left.
    """
    words, quotable = list(WORD.finditer(text)), set().union(*(ngrams(source, QUOTE) for source in sources))
    own = [found.group(0).lower() for found in words]
    kept: list[str] = []
    begin, last = 0, -2  # where the next kept piece begins, and the last word that was quoted
    for i in range(len(own) - QUOTE + 1):
        if tuple(own[i : i + QUOTE]) in quotable:
            if i > last + 1:
                kept += [text[begin : words[i].start()], "…"]
            last = i + QUOTE - 1
            begin = words[last].end()
    rest = "".join([*kept, text[begin:]])
    return rest if WORD.search(rest) else ""
