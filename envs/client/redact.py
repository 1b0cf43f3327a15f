"""Secrets out of texts that are kept or shown (errors, ledger records, logs). Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

MARK = "[redacted]"
SECRETS = re.compile(
    r"\b(?:sk|pk|rk)-[A-Za-z0-9_\-]{16,}"  # API keys
    r"|\b(?:hf|gh[pousr]|xox[abp])[_-][A-Za-z0-9\-]{16,}"
    r"|(?<=Bearer )[A-Za-z0-9._\-]{8,}"
    r"|(?<=://)[^/\s:@]+:[^/\s:@]+(?=@)"  # user:password in a URL
)


def redact(text: str, known: Iterable[str] = ()) -> str:
    """`text` without key-like strings and without the `known` secrets."""
    for secret in known:
        if len(secret) >= 8:
            text = text.replace(secret, MARK)
    return SECRETS.sub(MARK, text)
