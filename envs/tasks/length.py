"""What the length of a written reply leaves of its score, where a person is imitated. Pure.

Length factor of soul (OdysSim's rule): min(1, n / (0.3 r)) for n words against the person's r, if r >= 20: nothing is
ever too long. strict adds the other side: min(1, 3 max(r, 20) / n), so that a reply beyond three times the person's
length (60 words for short ones, or where no text of the person is known) loses in proportion.
"""

from __future__ import annotations

import re

from envs.registry import Profile

WORD = re.compile(r"\w+")
SUBSTANTIAL = 20
"""Words from which a person's reply is long enough to ask for a share of its length."""
LEAST_SHARE, MOST_TIMES = 0.3, 3.0


def length_factor(reply: str, reference: str, profile: Profile) -> float:
    """What length leaves of a score, in [0, 1]. `reference` is the person's own text, empty where none is known."""
    n, r = len(words(reply)), len(words(reference))
    enough = min(1.0, n / (LEAST_SHARE * r)) if r >= SUBSTANTIAL else 1.0
    if profile != "strict":
        return enough
    return min(enough, MOST_TIMES * max(r, SUBSTANTIAL) / n) if n else 0.0


def words(text: str) -> list[str]:
    """Lower-case words."""
    return [word.lower() for word in WORD.findall(text)]
