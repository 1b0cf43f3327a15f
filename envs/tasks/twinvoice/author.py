"""TwinVoice's own answer rules (TwinVoice/TwinBench @505dd45, discriminative evaluation). Pure.

Dimension 1 (social) reads `predicted_comment` of the first JSON object; dimensions 2 and 3 read `choice` of a JSON
reply, else the first `choice: X` in it. Dimensions 1 and 2 leave unreadable answers out of the mean, dimension 3
counts them as wrong: `both_denominators` gives the two. Abstaining therefore pays under the first; `strict` counts an
unreadable answer as wrong everywhere.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

CHOICE = re.compile(r'"?choice"?\s*[:=]\s*"?([ABCD])"?', re.IGNORECASE)
OBJECT = re.compile(r"\{[\s\S]*?\}")
LETTERS = ("A", "B", "C", "D")


def parse_choice(response: str) -> str | None:
    """The letter of a JSON reply's `choice`, else of the first `choice: X`; None without one (dimensions 2, 3)."""
    value = _json(response)
    given = value.get("choice", "") if isinstance(value, dict) else None
    if isinstance(given, str):
        return given.upper() if given.upper() in LETTERS else None
    found = CHOICE.search(response)
    return found.group(1).upper() if found else None


def parse_comment(response: str) -> str | None:
    """The letter of `predicted_comment` in the reply's first {…}; None without one (dimension 1)."""
    found = OBJECT.search(response)
    value = _json(found.group(0)) if found else None
    given = value.get("predicted_comment", "") if isinstance(value, dict) else ""
    letter = given.strip().upper() if isinstance(given, str) else ""
    return letter if letter in LETTERS else None


def both_denominators(right: Sequence[bool | None]) -> dict[str, float]:
    """Accuracy over readable answers and over all answers; None is an answer that could not be read."""
    readable = [r for r in right if r is not None]
    out = {"accuracy over all answers": sum(readable) / len(right)} if right else {}
    return out | ({"accuracy over readable answers": sum(readable) / len(readable)} if readable else {})


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
