"""Reading a verdict: a letter, or one rating per letter. Pure.

strict: one answer block, holding exactly one letter (`[[A]]` too), or every letter exactly once with a whole number
from 1 to 10. soul: RewardBench 2 reads `[[A]]` anywhere (not OdysSim's guesses at bare letters), RM-R1 only in the
last 80 characters of the reply.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from envs.tasks.single import only_answer

RATING = re.compile(r"\A\[*([A-Z])\]*\s*[:=]\s*(\d+)\Z")
LAST_CHARS = 80


def strict_letter(reply: str, letters: str) -> str | None:
    """The one letter of the answer block."""
    block = (only_answer(reply) or "").strip("[]() .").upper()
    return block if len(block) == 1 and block in letters else None


def strict_ratings(reply: str, letters: str) -> tuple[int, ...] | None:
    """A rating for every letter, in the letters' order."""
    parts = [
        RATING.match(part.strip().upper()) for part in re.split(r"[,;\n]+", only_answer(reply) or "") if part.strip()
    ]
    if None in parts or sorted(p.group(1) for p in parts if p) != list(letters):
        return None
    found = {p.group(1): int(p.group(2)) for p in parts if p}
    return tuple(found[letter] for letter in letters) if all(1 <= r <= 10 for r in found.values()) else None


def bracketed(reply: str, letters: str) -> str | None:
    """The first letter in double brackets."""
    found = re.search(r"\[\[\s*([A-Z])\s*\]\]", reply.upper())
    return found.group(1) if found and found.group(1) in letters else None


def at_the_end(reply: str, letters: str) -> str | None:
    """The letter whose exact answer block is in the last 80 characters, unless two are."""
    tail = reply[-LAST_CHARS:]
    found = [letter for letter in letters if f"<answer>[[{letter}]]</answer>" in tail]
    return found[0] if len(found) == 1 else None


def separated(ratings: Sequence[int], right: Sequence[int]) -> bool:
    """Every right candidate is rated above every wrong one."""
    wrong = [r for i, r in enumerate(ratings) if i not in right]
    return min(ratings[i] for i in right) > max(wrong)
