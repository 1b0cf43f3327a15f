"""How OdysSim reads a LifeChoices reply (spec: odyssim 3.3), for comparison only. Pure.

The reply is upper-cased and seven patterns are tried in order; in the end the first A, B, C or D of any word counts,
so that prose without an answer gets a letter. `strict` reads one answer block and nothing else.
"""

from __future__ import annotations

import re

from envs.tasks.choice import Item, index_of
from envs.tasks.single import without_thought

PATTERNS = tuple(
    re.compile(pattern)
    for pattern in (
        r"<ANSWER>\s*([ABCD])\s*</ANSWER>",
        r"\A([ABCD])\s*[.):,]",
        r"CHOICE[:\s]+([ABCD])",
        r"ANSWER[:\s]+([ABCD])",
        r"\(([ABCD])\)",
        r"([ABCD])\s*\Z",
        r"([ABCD])",
    )
)


def permissive_choice(item: Item, reply: str) -> int | None:
    """The letter of the first pattern that matches."""
    text = without_thought(reply).upper()
    found = next((m for pattern in PATTERNS if (m := pattern.search(text))), None)
    return index_of(item, found.group(1)) if found else None
