"""Telling about oneself in the third person instead of speaking. Stage directions in brackets are allowed. Pure."""

from __future__ import annotations

import re

BRACKETED = re.compile(r"\([^()]*\)|\[[^\[\]]*\]|\*[^*]*\*")
FIRST_PERSON = re.compile(r"\b(?:I|me|my|mine|myself|I['’]\w+)\b")
QUOTED = re.compile(r"[\"“][^\"”]*[\"”]")
VERB = (
    r"(?:\w+(?:ed|es|[a-z]s)|is|was|has|had|does|did|goes|went|says|said|will|then|quietly|slowly|finally|suddenly)"
)


def find(text: str, name: str) -> str | None:
    """The own name followed by a verb, with no first person outside quotations; None otherwise."""
    if len(name) < 2:
        return None
    outside = QUOTED.sub(" ", BRACKETED.sub(" ", text))
    if FIRST_PERSON.search(outside):
        return None
    first = re.escape(name.split()[0])
    found = re.search(rf"\b{first}\b(?: {re.escape(name.split()[-1])}\b)? {VERB}\b", outside)
    return found.group(0)[:120] if found else None
