"""Secrets out of texts that are kept or shown (errors, ledger records, manifests, logs). Pure."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from urllib.parse import parse_qsl, unquote, urlsplit

from pydantic_core import PydanticCustomError

MARK = "[redacted]"
IS_SECRET = "secret"
"""Type of the validation errors whose input is never shown."""
MIN_SECRET_CHARS = 8
"""Shorter values ("none", "test") are words of ordinary texts."""
SECRETS = re.compile(
    r"\b(?:sk|pk|rk)-[A-Za-z0-9_\-]{16,}"  # API keys
    r"|\b(?:hf|gh[pousr]|xox[abp])[_-][A-Za-z0-9\-]{16,}"
    r"|(?<=Bearer )[A-Za-z0-9._\-]{8,}"
    r"|(?<=://)[^/\s?#@]+(?::[^/\s?#]*)?(?=@)"  # user:password in a URL
)
IN_QUERY = re.compile(r"([?&][\w.\-]*(?:key|token|secret|password|signature|sig|auth)=)[^&#\s'\"]+", re.IGNORECASE)


def redact(text: str, known: Iterable[str] = ()) -> str:
    """`text` without key-like strings, credentials in addresses, and the `known` secrets."""
    return IN_QUERY.sub(rf"\1{MARK}", SECRETS.sub(MARK, redact_known(text, known)))


def redact_known(text: str, known: Iterable[str]) -> str:
    """`text` without the `known` secrets: for a model's own words, which are otherwise kept as they are."""
    for secret in known:
        if len(secret) >= MIN_SECRET_CHARS:
            text = text.replace(secret, MARK)
    return text


def secrets_of_address(url: str) -> tuple[str, ...]:
    """What must not be repeated of an address: its password, user and password together as they are and as the basic
    authorisation that is made of them, and values of its query."""
    parts = urlsplit(url)
    user, _, password = parts.netloc.rpartition("@")[0].partition(":")
    query = [value for _, value in parse_qsl(parts.query)]
    if not user and not password:
        return tuple(query)
    both = f"{unquote(user)}:{unquote(password)}"
    basic = base64.b64encode(both.encode()).decode()
    return (basic, both, f"{user}:{password}", password, unquote(password), *query)


def address_without_secret(url: str | None) -> str | None:
    """The address as it is, for recipes: they are copied to run folders and reports. Raises the error of a secret."""
    if url is not None and redact(url) != url:
        raise PydanticCustomError(
            IS_SECRET,
            "the address holds a credential: take it out, and name the environment variable that has the key",
        )
    return url


def addresses_without_secret(urls: tuple[str, ...]) -> tuple[str, ...]:
    """The same for several."""
    for url in urls:
        address_without_secret(url)
    return urls
