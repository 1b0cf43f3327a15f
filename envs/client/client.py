"""Client: one question to a model API, with everything around it, for judges, partners, critics and auditors.

Runs in the process that plays episodes (rank 0 in training). Invariants (tests/envs/client):
* an answer is a model's own words or a Failed with a kind; nothing is made up, and error texts are never answers;
* no question outlives its deadline; no run spends above max_usd; replay-strict opens no connection;
* every attempt is in the returned calls, for the ledger; those of a question that was cancelled go to `on_abandoned`.
Failures that would hit every further call (bad key, unknown model, spent budget) stop the run as OsimErrors.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import BaseModel

from common.errors import UsageError
from common.seeds import derive_seed
from envs.client import structured
from envs.client.budget import Budget, cost_usd, estimate_tokens, most_tokens
from envs.client.cache import Cache, Completion
from envs.client.concurrency import AdaptiveLimit
from envs.client.config import ClientConfig, Endpoint, RoleName, resolve
from envs.client.rate import Bucket
from envs.client.retry import Failure, FailureKind, wait_s
from envs.types import JudgeCall, Message

V = TypeVar("V")
SEED_LIMIT = 2**31


@dataclass(frozen=True)
class Answered(Generic[V]):
    """`value` is the text, or the validated instance of the schema."""

    value: V
    finish: str
    calls: tuple[JudgeCall, ...]


@dataclass(frozen=True)
class Failed:
    """No answer."""

    kind: FailureKind
    detail: str
    calls: tuple[JudgeCall, ...]


@dataclass(frozen=True)
class Question:
    """What is asked, by whom, how. `seed` tells samples of an equal question apart and is sent to the endpoint."""

    role: RoleName
    messages: tuple[Message, ...]
    max_tokens: int
    seed: int
    temperature: float | None = None


class _Lane:
    """State of one role's endpoint in one event loop."""

    def __init__(self, endpoint: Endpoint, environment: Mapping[str, str]) -> None:
        from envs.client.transport import Transport  # the SDK takes most of a second to import

        now = asyncio.get_running_loop().time()
        self.endpoint = endpoint
        self.limit = AdaptiveLimit(endpoint.max_concurrency)
        self.requests = Bucket(endpoint.requests_per_minute, now) if endpoint.requests_per_minute else None
        self.tokens = Bucket(endpoint.tokens_per_minute, now) if endpoint.tokens_per_minute else None
        self.transport = Transport(endpoint, resolve(endpoint, environment))


class Client:
    """Answers questions. `spent_usd` is what earlier processes of this run spent (from the ledger)."""

    def __init__(
        self,
        config: ClientConfig,
        *,
        environment: Mapping[str, str] | None = None,
        spent_usd: float = 0.0,
        on_abandoned: Callable[[JudgeCall], None] | None = None,
    ) -> None:
        self.config = config
        self.budget = Budget(config.max_usd, spent_usd)
        self._environment = dict(os.environ) if environment is None else dict(environment)
        self._cache = Cache(config.cache, config.cache_file)
        self._on_abandoned = on_abandoned
        self._lanes: dict[RoleName, _Lane] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    async def ask(self, question: Question) -> Answered[str] | Failed:
        """A free-text answer."""
        return await self._within_deadline(question, None)

    async def ask_json(self, question: Question, schema: type[BaseModel]) -> Answered[Any] | Failed:
        """An answer that validates against `schema`, asked again with the problem shown where it does not."""
        return await self._within_deadline(question, schema)

    async def close(self) -> None:
        """Close connections and the cache."""
        for lane in self._lanes.values():
            await lane.transport.close()
        self._lanes.clear()
        self._cache.close()

    def concurrency(self, role: RoleName) -> int:
        """The adaptive limit of a role now (0 before its first call), for progress lines."""
        lane = self._lanes.get(role)
        return lane.limit.limit if lane else 0

    async def _within_deadline(self, question: Question, schema: type[BaseModel] | None) -> Answered[Any] | Failed:
        endpoint = self.config.endpoint(question.role)
        calls: list[JudgeCall] = []
        deadline = asyncio.timeout(endpoint.deadline_s)
        try:
            async with deadline:
                return await self._asked(question, schema, endpoint, calls)
        except asyncio.CancelledError:
            # A turn that took too long: nobody else will tell the ledger what was asked and paid.
            if self._on_abandoned is not None:
                for call in calls:
                    self._on_abandoned(call)
            raise
        except TimeoutError:
            if not deadline.expired():
                raise
            last = f"; last failure: {calls[-1].error}" if calls and calls[-1].error else ""
            return Failed("deadline", f"no answer within {endpoint.deadline_s} s{last}", tuple(calls))

    async def _asked(
        self, question: Question, schema: type[BaseModel] | None, endpoint: Endpoint, calls: list[JudgeCall]
    ) -> Answered[Any] | Failed:
        talk = [{"role": m.role, "content": m.content} for m in question.messages]
        if schema is not None and endpoint.structured == "none":
            talk.append({"role": "user", "content": structured.schema_text(schema)})
        problem = ""
        for _ in range(endpoint.max_reasks + 1):
            request = _request(question, endpoint, schema, talk)
            answer = await self._completion(question, endpoint, request, calls)
            if isinstance(answer, Failure):
                return Failed(answer.kind, answer.detail, tuple(calls))
            if schema is None:
                return Answered(answer.text, answer.finish, tuple(calls))
            value = structured.parse(schema, answer.text)
            if not isinstance(value, str):
                return Answered(value, answer.finish, tuple(calls))
            problem = value
            talk += [
                {"role": "assistant", "content": answer.text},
                {"role": "user", "content": structured.reask(problem)},
            ]
        return Failed("invalid_reply", f"asked {endpoint.max_reasks + 1} times; {problem}", tuple(calls))

    async def _completion(
        self, question: Question, endpoint: Endpoint, request: dict[str, Any], calls: list[JudgeCall]
    ) -> Completion | Failure:
        """From the cache, or from the endpoint with repeats."""
        key = Cache.key({**request, "extra": endpoint.extra_body})
        if (stored := self._cache.get(key)) is not None:
            calls.append(_record(question, request, stored, 0.0, 0.0, cached=True))
            return stored
        if self._cache.strict:
            return Failure("not_recorded", f"no recorded reply for this request ({key})")
        failure = Failure("connection", "not tried")
        for attempt in range(endpoint.max_retries + 1):
            answer = await self._attempt(question, request, calls)
            if isinstance(answer, Completion):
                self._cache.put(key, answer)
                return answer
            failure = answer
            if failure.kind == "credentials":
                raise UsageError(
                    failure.detail,
                    where=f"{question.role} endpoint, model {endpoint.model}",
                    fix="check the key, the address and the model name (osim doctor tries the endpoint)",
                )
            wait = wait_s(failure, attempt, derive_seed(question.seed, key))
            if not failure.repeat or attempt == endpoint.max_retries or wait > endpoint.deadline_s:
                break
            await asyncio.sleep(wait)
        return failure

    async def _attempt(
        self, question: Question, request: dict[str, Any], calls: list[JudgeCall]
    ) -> Completion | Failure:
        """One request, within rate limits, concurrency and budget."""
        lane = self._lane(question.role)
        endpoint, loop = lane.endpoint, asyncio.get_running_loop()
        prompt = estimate_tokens(sum(len(m["content"]) for m in request["messages"]))
        waits = [
            bucket.reserve(amount, loop.time())
            for bucket, amount in ((lane.requests, 1), (lane.tokens, prompt + question.max_tokens))
            if bucket is not None
        ]
        await asyncio.sleep(max(waits, default=0.0))
        async with lane.limit.slot() as generation:
            reserved = cost_usd(endpoint.price, most_tokens(request), question.max_tokens)
            self.budget.reserve(reserved)
            started, cost = time.monotonic(), 0.0
            answer: Completion | Failure = Failure("deadline", "given up while it was being answered")
            try:
                answer = await lane.transport.send(request, endpoint.extra_body)
                if isinstance(answer, Completion):
                    used = counted(answer, prompt)
                    cost = cost_usd(endpoint.price, *used)
            finally:
                self.budget.settle(reserved, cost)
                calls.append(_record(question, request, answer, cost, time.monotonic() - started))
        if isinstance(answer, Completion):
            lane.limit.succeeded()
            if lane.tokens is not None:
                lane.tokens.correct(prompt + question.max_tokens - sum(counted(answer, prompt)))
        elif answer.kind == "rate_limit":
            lane.limit.rate_limited(generation, answer.retry_after_s or 0.0)
        return answer

    def _lane(self, role: RoleName) -> _Lane:
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            # Connections and waiters belong to the loop that made them.
            self._lanes.clear()
            self._loop = loop
        if role not in self._lanes:
            self._lanes[role] = _Lane(self.config.endpoint(role), self._environment)
        return self._lanes[role]


def counted(answer: Completion, prompt_tokens: int) -> tuple[int, int]:
    """Prompt and completion tokens; estimated where the endpoint counts none, so that no budget runs unseen."""
    if answer.prompt_tokens or answer.completion_tokens:
        return answer.prompt_tokens, answer.completion_tokens
    return prompt_tokens, estimate_tokens(len(answer.text))


def _request(
    question: Question, endpoint: Endpoint, schema: type[BaseModel] | None, talk: Sequence[Mapping[str, str]]
) -> dict[str, Any]:
    request: dict[str, Any] = {
        "model": endpoint.model,
        "messages": [dict(m) for m in talk],
        endpoint.max_tokens_field: question.max_tokens,
        "seed": question.seed % SEED_LIMIT,
    }
    if question.temperature is not None and endpoint.send_temperature:
        request["temperature"] = question.temperature
    if schema is not None and (form := structured.response_format(schema, endpoint.structured)) is not None:
        request["response_format"] = form
    return request


def _record(
    question: Question,
    request: Mapping[str, Any],
    answer: Completion | Failure,
    cost: float,
    wall_s: float,
    *,
    cached: bool = False,
) -> JudgeCall:
    if isinstance(answer, Failure):
        error = f"{answer.kind}: {answer.detail}"
        return JudgeCall(question.role, request["model"], request, None, error, cost, wall_s)
    return JudgeCall(
        role=question.role,
        model=request["model"],
        request=request,
        reply=answer.text,
        error=None,
        cost_usd=cost,
        wall_s=wall_s,
        prompt_tokens=answer.prompt_tokens,
        completion_tokens=answer.completion_tokens,
        cached=cached,
    )
