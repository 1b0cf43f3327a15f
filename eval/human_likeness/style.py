"""Length, formatting, punctuation and case habits, and slop: rates per turn or per 1,000 words, compared as shapes.

Distances: Wasserstein-1 on log2(1 + words) for length (robust to the heavy tail); Jensen-Shannon divergence (bits)
of length bins; absolute difference of rates otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from eval.human_likeness.text import Utterance, words
from eval.stats import F64

Side = Sequence[Utterance]


@dataclass(frozen=True)
class MeasureSpec:
    """How one measure is computed; `value` is what each side has by itself, where that is one number."""

    name: str
    group: str
    unit: str
    distance: Callable[[Side, Side], float]
    value: Callable[[Side], float] | None = None


def wasserstein(a: F64, b: F64) -> float:
    """W1 between two empirical distributions on the line: area between their distribution functions."""
    both = np.sort(np.concatenate([a, b]))
    gaps = np.diff(both)
    at_a = np.searchsorted(np.sort(a), both[:-1], side="right") / len(a)
    at_b = np.searchsorted(np.sort(b), both[:-1], side="right") / len(b)
    return float(np.sum(np.abs(at_a - at_b) * gaps))


def kolmogorov_smirnov(a: F64, b: F64) -> float:
    """Largest gap between two empirical distribution functions."""
    both = np.concatenate([a, b])
    at_a = np.searchsorted(np.sort(a), both, side="right") / len(a)
    at_b = np.searchsorted(np.sort(b), both, side="right") / len(b)
    return float(np.max(np.abs(at_a - at_b)))


def jensen_shannon(p: F64, q: F64) -> float:
    """Jensen-Shannon divergence in bits of two count vectors, add-one smoothed; 0 to 1."""
    p, q = (p + 1) / (p + 1).sum(), (q + 1) / (q + 1).sum()
    m = (p + q) / 2
    return float((np.sum(p * np.log2(p / m)) + np.sum(q * np.log2(q / m))) / 2)


def _lengths(side: Side) -> F64:
    return np.array([len(words(u.text)) for u in side], dtype=np.float64)


def _length_bins(side: Side) -> F64:
    return np.bincount(np.minimum(np.ceil(np.log2(1 + _lengths(side))), 12).astype(int), minlength=13).astype(
        np.float64
    )


FORMATTING = {
    "list": re.compile(r"^\s*(?:[-*•]|\d+[.)])\s+\S", re.MULTILINE),
    "heading": re.compile(r"^\s{0,3}#{1,6}\s+\S", re.MULTILINE),
    "bold or italics": re.compile(r"\*\*[^*\n]+\*\*|__[^_\n]+__|(?<!\*)\*[^*\s][^*\n]*\*(?!\*)"),
    "code": re.compile(r"`[^`\n]+`|```"),
    "table": re.compile(r"^\s*\|.+\|\s*$", re.MULTILINE),
    "emoji": re.compile("[\U0001f300-\U0001faff\u2600-\u27bf]"),
    "em dash": re.compile(r"—|–| -- "),
    "paragraph break": re.compile(r"\n\s*\n"),
}

HABITS = {
    "no final punctuation": re.compile(r"[^\s.!?…\"'”’)\]]\s*\Z"),
    "starts lower-case": re.compile(r"\A\s*[a-z]"),
    "lower-case i": re.compile(r"(?<![\w'])i(?![\w])"),
    "no capital at all": re.compile(r"\A[^A-Z]*\Z"),
    "repeated ! or ?": re.compile(r"[!?]{2,}"),
    "ellipsis": re.compile(r"\.{2,}|…"),
    "exclamation": re.compile(r"!"),
    "question": re.compile(r"\?"),
    "all-caps word": re.compile(r"\b[A-Z]{3,}\b"),
    "dropped apostrophe": re.compile(r"(?i)\b(?:dont|cant|wont|im|ive|didnt|isnt|thats|youre|doesnt|wasnt)\b"),
    "internet shorthand": re.compile(r"(?i)\b(?:lol|idk|tbh|imo|btw|omg|ur?|thx|pl[sz]|gonna|wanna|yeah|nah)\b"),
    "curly quotes": re.compile(r"[“”‘’]"),
}  # fmt: skip

# Words and phrases that assistants overuse; the rate is compared with the human rate, never judged alone.
SLOP = re.compile(
    r"\b(?:delv(?:e|es|ed|ing)|tapestry|testament to|a myriad of|multifaceted|nuanced?|intricate|seamless(?:ly)?|"
    r"foster(?:s|ing)?|underscor(?:e|es|ing)|navigat(?:e|ing) (?:the|this|these)|in the realm of|embark(?:s|ing)? on|"
    r"resonat(?:e|es|ing)|leverag(?:e|es|ing)|holistic|robust|vibrant|bustling|treasure trove|game.changer|"
    r"barely above a whisper|shivers? (?:down|up)|it'?s (?:important|worth) (?:to note|noting)|as an ai|"
    r"i understand (?:your|how|that)|i(?:'d| would) be happy to|feel free to|i(?: completely| totally)? appreciate "
    r"(?:your|you)|thank you for (?:sharing|reaching)|let'?s (?:dive|explore|unpack)|great question|absolutely!|"
    r"certainly!|i hope this helps|in conclusion|not only\b.{1,60}\bbut also)\b",
    re.IGNORECASE,
)


def rate(pattern: re.Pattern[str]) -> Callable[[Side], float]:
    """Share of turns that contain the pattern."""
    return lambda side: sum(_has(pattern, u.text) for u in side) / len(side)


@lru_cache(maxsize=1_000_000)
def _has(pattern: re.Pattern[str], text: str) -> bool:
    return bool(pattern.search(text))


@lru_cache(maxsize=100_000)
def _slop(text: str) -> int:
    return len(SLOP.findall(text))


def slop_per_1k(side: Side) -> float:
    """Matches of SLOP per 1,000 words."""
    total = sum(len(words(u.text)) for u in side)
    return 1000 * sum(_slop(u.text) for u in side) / max(1, total)


def _difference(value: Callable[[Side], float]) -> Callable[[Side, Side], float]:
    return lambda a, b: abs(value(a) - value(b))


def _rate_spec(group: str, name: str, pattern: re.Pattern[str]) -> MeasureSpec:
    value = rate(pattern)
    return MeasureSpec(name, group, "share of turns, difference", _difference(value), value)


def _mean_words(side: Side) -> float:
    return float(_lengths(side).mean())


MEASURES: tuple[MeasureSpec, ...] = (
    MeasureSpec(
        "words per turn, W1", "length", "log2 words",
        lambda a, b: wasserstein(np.log2(1 + _lengths(a)), np.log2(1 + _lengths(b))), _mean_words,
    ),
    MeasureSpec("words per turn, KS", "length", "0 to 1", lambda a, b: kolmogorov_smirnov(_lengths(a), _lengths(b))),
    MeasureSpec("length bins, JS", "length", "bits", lambda a, b: jensen_shannon(_length_bins(a), _length_bins(b))),
    *(_rate_spec("formatting", name, pattern) for name, pattern in FORMATTING.items()),
    *(_rate_spec("punctuation and case", name, pattern) for name, pattern in HABITS.items()),
    MeasureSpec("slop", "slop", "matches per 1,000 words, difference", _difference(slop_per_1k), slop_per_1k),
)  # fmt: skip
