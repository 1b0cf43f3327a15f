"""Text of unknown origin, made safe to store and to print. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

import orjson

MAX_JSON_DEPTH = 100
UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff\U000e0000-\U000e007f]"
)
"""Control characters but tab and newline, and what reorders or hides the characters around it."""


def well_formed(text: str) -> str:
    """`text` with U+FFFD for half characters (lone surrogates), which UTF-8 cannot hold."""
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def printable(text: str) -> str:
    """`text` for a terminal: a character that would steer it is shown as its code, e.g. \\x1b for escape."""
    return UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape", "surrogatepass").decode("ascii"), text)


def json_in(text: str) -> object:
    """The JSON value that is all of a model's text; None for any other text.

    Strict JSON of well-formed strings, nested so shallow that whoever walks or writes it never exhausts the stack.
    """
    try:
        value: object = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    level = [value]
    for _ in range(MAX_JSON_DEPTH):
        level = [child for one in level for child in _children(one)]
        if not level:
            return value
    return None


def _children(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()
