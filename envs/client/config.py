"""Where each role's model is, what it costs, and how hard it may be driven. No I/O but `resolve`.

`OPENAI_BASE_URL` and `OPENAI_API_KEY` are the defaults of every role. A role with its own `base_url` never gets the
default key: keys go only to the host they belong to.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, field_validator

from common.config import Config
from common.errors import UsageError
from common.redact import address_without_secret

CacheMode = Literal["live", "record", "replay", "replay-strict"]
RoleName = Literal["judge", "partner", "critic", "auditor", "policy"]

DEFAULT_KEY_VARIABLE = "OPENAI_API_KEY"
DEFAULT_URL_VARIABLE = "OPENAI_BASE_URL"
NO_KEY = "none"


class Price(Config):
    """US dollars per million tokens."""

    prompt: NonNegativeFloat = 0.0
    """A million prompt tokens."""
    completion: NonNegativeFloat = 0.0
    """A million answered tokens."""


class Endpoint(Config):
    """An OpenAI-compatible chat endpoint and one of its models."""

    model: str
    """Name of the model at the endpoint."""
    base_url: str | None = None
    """None: OPENAI_BASE_URL, else the SDK's default."""
    api_key_variable: str | None = None
    """Name of the environment variable with the key. None: OPENAI_API_KEY if base_url is None, else no key."""
    structured: Literal["json_schema", "json_object", "none"] = "json_schema"
    """How JSON replies are asked for. Every reply is validated, however it was asked for."""
    price: Price = Price()
    """What its tokens cost; 0: unknown or free."""
    max_concurrency: PositiveInt = 64
    """Upper bound; the limit adapts below it."""
    requests_per_minute: PositiveInt | None = None
    """Rate limit that is kept; None: none."""
    tokens_per_minute: PositiveInt | None = None
    """Rate limit that is kept; None: none."""
    attempt_timeout_s: PositiveFloat = 60.0
    """One HTTP request."""
    deadline_s: PositiveFloat = 300.0
    """One question, with all its repeats and re-asks."""
    max_retries: int = Field(default=5, ge=0)
    """Repeats of a request that failed."""
    max_reasks: int = Field(default=2, ge=0)
    """Further questions when a reply does not fit its schema."""
    max_tokens_field: Literal["max_completion_tokens", "max_tokens"] = "max_completion_tokens"
    """Which request field bounds the reply: older servers know only max_tokens."""
    send_temperature: bool = True
    """False for models that refuse the field."""
    extra_body: dict[str, str | int | float | bool] = Field(default_factory=dict)
    """Further request fields, e.g. reasoning_effort."""

    _no_secret = field_validator("base_url")(address_without_secret)


class ClientConfig(Config):
    """All roles of a run. A role without an endpoint cannot be asked."""

    judge: Endpoint | None = None
    """Scores episodes of tasks that declare a judge."""
    partner: Endpoint | None = None
    """Plays the seats that are not the policy's."""
    critic: Endpoint | None = None
    """Writes verbal feedback for tasks that declare a critic."""
    auditor: Endpoint | None = None
    """For judges of role auditor in tasks of your own; no shipped task asks one."""
    policy: Endpoint | None = None
    """The evaluated model, where it is an API; set by `model.endpoint`."""
    max_usd: PositiveFloat | None = None
    """The run stops (exit 3) before it spends more."""
    cache: CacheMode = "live"
    """Use of recorded replies: none; record all; replay, asking for what is missing; replay only."""
    cache_file: Path | None = None
    """SQLite file of recorded replies; needed unless cache is "live"."""

    def endpoint(self, role: RoleName) -> Endpoint:
        """The role's endpoint. Raises UsageError when it has none."""
        found: Endpoint | None = getattr(self, role)
        if found is None:
            raise UsageError(
                f"no endpoint for the role {role!r}", where="client", fix=f"set client.{role}.model in the recipe"
            )
        return found


@dataclass(frozen=True)
class Address:
    """Where to send requests, and with which key."""

    base_url: str | None
    api_key: str


def resolve(endpoint: Endpoint, environment: Mapping[str, str]) -> Address:
    """The endpoint's address. Raises UsageError when a key is named or needed but not there."""
    url = endpoint.base_url or environment.get(DEFAULT_URL_VARIABLE)
    name = endpoint.api_key_variable
    if name is None:
        if endpoint.base_url is not None:
            return Address(url, NO_KEY)
        key = environment.get(DEFAULT_KEY_VARIABLE)
        if key is None and url is not None:
            return Address(url, NO_KEY)
        name = DEFAULT_KEY_VARIABLE
    key = environment.get(name)
    if not key:
        raise UsageError(
            f"environment variable {name} is not set",
            where=f"endpoint of model {endpoint.model}",
            fix=f"export {name}=…, or set base_url to an endpoint that needs no key",
        )
    return Address(url, key)
