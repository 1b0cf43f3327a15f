"""FANToM's own answer rules (skywalker023/fantom @ebd35eb, `eval_fantom.py`), quirks included. Pure.

Quirks kept on purpose, for comparison with published numbers only: an option counts when "(x)" occurs anywhere, so
"(a) or (b)" is right; names are matched as substrings ("Al" in "Alice"); "nobody" is a no.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

LETTERS = "abcdefghijklmnopqrstuvwxyz"
UNKNOWN = -1
YES_INSIDE = (" yes,", " yes ", " yes.", " knows ")
NO_INSIDE = (" no,", " no ", " no.", " does not know ", " doesn't know ")


def choice_is_right(response: str, correct: int) -> bool:
    """Multiple choice; `correct` is the option's index."""
    letter, text = LETTERS[correct], response.lower()
    starts = tuple(letter + mark for mark in ").:,")
    return text == letter or text.startswith(starts) or f"({letter})" in text


def list_verdict(response: str, correct: Sequence[str], wrong: Sequence[str]) -> tuple[bool, bool, bool]:
    """(right, someone who belongs is missing, someone who does not belong is named)."""
    text = response.lower()
    missing = any(name.lower() not in text for name in correct)
    extra = any(name.lower() in text for name in wrong)
    return not missing and not extra, missing, extra


def yes_or_no(response: str) -> int:
    """1 yes, 0 no, -1 neither."""
    text = response.lower().strip("'").strip('"')
    if text.startswith(("yes", "true")) or any(mark in text for mark in YES_INSIDE):
        return 1
    if text.startswith(("no", "false")) or any(mark in text for mark in NO_INSIDE):
        return 0
    return UNKNOWN


def token_f1(response: str, correct: str) -> float:
    """F1 of lower-case whitespace tokens, punctuation as it is."""
    given, wanted = response.lower().split(), correct.lower().split()
    shared = sum((Counter(given) & Counter(wanted)).values())
    if shared == 0:
        return 0.0
    precision, recall = shared / len(given), shared / len(wanted)
    return 2 * precision * recall / (precision + recall)
