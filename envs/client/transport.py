"""One HTTP request through the openai SDK, with its errors as ours. The only module that imports the SDK.

The SDK's own repeats are off (`retry.py` decides), and the body is validated here: an endpoint that answers 200 with
something else than a chat completion is a failure, not an empty answer.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Annotated, Any

import aiohttp
import openai
from pydantic import BaseModel, Field, ValidationError

from common.bounded_http import bounded_client
from common.redact import redact, redact_known, secrets_of_address
from envs.client.cache import Completion
from envs.client.config import Address, Endpoint
from envs.client.retry import Failure, kind_of_status, parse_retry_after

DETAIL_CHARS = 500
REFUSALS = ("content_filter",)


TokenCount = Annotated[int, Field(ge=0, le=1 << 40)]
"""What the ledger can hold and a price can multiply."""


class _Usage(BaseModel):
    prompt_tokens: TokenCount = 0
    completion_tokens: TokenCount = 0


class _Message(BaseModel):
    content: str | None = None
    refusal: str | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None


class _Body(BaseModel):
    choices: list[_Choice] = Field(min_length=1)
    usage: _Usage | None = None


def _lost(error: openai.APITimeoutError) -> bool:
    """Whether the server closed the connection: httpx-aiohttp calls that a timeout too."""
    origin = error.__cause__ and error.__cause__.__cause__
    return isinstance(origin, aiohttp.ClientConnectionError) and not isinstance(origin, TimeoutError)


class Transport:
    """Sends to one address. Belongs to one event loop."""

    def __init__(self, endpoint: Endpoint, address: Address) -> None:
        self._secrets = (address.api_key, *secrets_of_address(address.base_url or ""))
        self._client = openai.AsyncOpenAI(
            api_key=address.api_key,
            base_url=address.base_url,
            max_retries=0,
            timeout=endpoint.attempt_timeout_s,
            http_client=bounded_client(endpoint.attempt_timeout_s),
        )

    async def send(self, request: Mapping[str, Any], extra_body: Mapping[str, Any]) -> Completion | Failure:
        """One attempt."""
        try:
            raw = await self._client.chat.completions.with_raw_response.create(**request, extra_body=dict(extra_body))
            body = _Body.model_validate_json(raw.content)
        except openai.APITimeoutError as e:
            return self._failure(Failure("connection" if _lost(e) else "timeout", f"{e} ({e.__cause__})"))
        except openai.APIConnectionError as e:
            return self._failure(Failure("connection", f"{e} ({e.__cause__})"))
        except openai.APIStatusError as e:
            wait = parse_retry_after(e.response.headers.get("retry-after"), time.time())
            return self._failure(Failure(kind_of_status(e.status_code, e.code), f"HTTP {e.status_code}: {e}", wait))
        except ValidationError as e:
            return self._failure(Failure("malformed", f"not a chat completion: {e.errors()[0]['msg']}"))
        return self._completion(body)

    async def close(self) -> None:
        await self._client.close()

    def _completion(self, body: _Body) -> Completion | Failure:
        choice, usage = body.choices[0], body.usage or _Usage()
        if choice.message.refusal or choice.finish_reason in REFUSALS:
            return self._failure(Failure("refused", choice.message.refusal or "content filter"))
        if choice.message.content is None:
            return Failure("malformed", "the answer has no content")
        # A gateway that repeats its caller's header must not carry the key into ledger and cache.
        text = redact_known(choice.message.content, self._secrets)
        return Completion(text, choice.finish_reason or "stop", usage.prompt_tokens, usage.completion_tokens)

    def _failure(self, failure: Failure) -> Failure:
        return Failure(failure.kind, redact(failure.detail, self._secrets)[:DETAIL_CHARS], failure.retry_after_s)
