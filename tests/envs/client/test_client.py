"""The API client against a real server: failures, deadlines, budgets, caches, concurrency."""

from __future__ import annotations

import asyncio
import importlib
import sqlite3
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
from pydantic import BaseModel, ConfigDict

from common.errors import DataError, UsageError
from envs.client.budget import BudgetExceeded
from envs.client.client import Answered, Client, Failed, Question
from envs.client.config import ClientConfig, Endpoint, Price, resolve
from envs.types import Message
from tests.envs.client.server import Server, always, score_of, serving

T = TypeVar("T")


class Verdict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    score: float


def question(text: str = "How good was it?", seed: int = 1) -> Question:
    return Question("judge", (Message("system", "You judge."), Message("user", text)), 50, seed)


def with_server(server: Server, use: Callable[[Client], Awaitable[T]], cache: Any = None, **endpoint: Any) -> T:
    async def main() -> T:
        async with serving(server):
            fast = {"attempt_timeout_s": 0.5, "deadline_s": 20.0, **endpoint}
            config = ClientConfig(judge=Endpoint(model="m", base_url=server.url, **fast), **(cache or {}))
            client = Client(config, environment={"OPENAI_API_KEY": "sk-not-for-this-host"})
            try:
                return await use(client)
            finally:
                await client.close()

    return asyncio.run(main())


def ask(server: Server, **options: Any) -> Answered[Any] | Failed:
    return with_server(server, lambda client: client.ask_json(question(), Verdict), **options)


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("429", "rate_limit"),
        ("500", "server"),
        ("hang", "timeout"),
        ("malformed", "malformed"),
        ("no_choices", "malformed"),
        ("truncated", "connection"),
        ("dropped", "connection"),
    ],
)
def test_a_passing_failure_is_repeated_and_recorded(fault: str, error: str) -> None:
    answer = ask(Server(always(fault, times=1)))
    assert isinstance(answer, Answered) and answer.value.score == score_of("How good was it?")
    assert [call.error is None for call in answer.calls] == [False, True]
    assert str(answer.calls[0].error).startswith(error)


@pytest.mark.parametrize("fault", ["wrong_schema", "prose"])
def test_an_invalid_reply_is_asked_again_with_the_problem_shown(fault: str) -> None:
    server = Server(always(fault, times=2))
    answer = ask(server)
    assert isinstance(answer, Answered) and len(answer.calls) == 3
    shown = server.requests[-1]["messages"]
    assert [m["role"] for m in shown] == ["system", "user", "assistant", "user", "assistant", "user"]
    assert "cannot be used" in shown[-1]["content"]


@pytest.mark.parametrize("fault", ["wrong_schema", "prose"])
def test_a_reply_that_stays_invalid_is_a_failure_never_a_default(fault: str) -> None:
    answer = ask(Server(always(fault)))
    assert isinstance(answer, Failed) and answer.kind == "invalid_reply" and len(answer.calls) == 3


def test_a_failure_that_stays_is_given_up_after_the_stated_repeats() -> None:
    answer = ask(Server(always("429")), max_retries=2)
    assert isinstance(answer, Failed) and answer.kind == "rate_limit" and len(answer.calls) == 3


def test_no_question_outlives_its_deadline() -> None:
    importlib.import_module("envs.client.transport")  # Its import takes time, which is not the answer's.
    started = time.monotonic()
    answer = ask(Server(always("hang")), deadline_s=2.0, attempt_timeout_s=100.0)
    assert isinstance(answer, Failed) and answer.kind == "deadline"
    assert time.monotonic() - started < 60
    assert len(answer.calls) == 1


@pytest.mark.parametrize(("fault", "kind"), [("400", "bad_request"), ("403", "refused")])
def test_what_repeating_cannot_mend_is_not_repeated(fault: str, kind: str) -> None:
    answer = ask(Server(always(fault)))
    assert isinstance(answer, Failed) and answer.kind == kind and len(answer.calls) == 1
    assert "sk-abc" not in answer.detail and "[redacted]" in answer.detail


def test_a_refused_key_stops_the_run_with_its_fix() -> None:
    with pytest.raises(UsageError, match="check the key"):
        ask(Server(always("401")))


def test_the_default_key_is_never_sent_to_another_host() -> None:
    server = Server()
    ask(server)
    assert server.keys == ["Bearer none"]


def test_addresses_come_from_the_role_then_the_environment() -> None:
    environment = {"OPENAI_BASE_URL": "http://local/v1", "OPENAI_API_KEY": "k1", "MY_KEY": "k2"}
    assert resolve(Endpoint(model="m"), environment).base_url == "http://local/v1"
    assert resolve(Endpoint(model="m"), environment).api_key == "k1"
    own = resolve(Endpoint(model="m", base_url="http://other/v1", api_key_variable="MY_KEY"), environment)
    assert (own.base_url, own.api_key) == ("http://other/v1", "k2")
    with pytest.raises(UsageError, match="OPENAI_API_KEY is not set"):
        resolve(Endpoint(model="m"), {})
    with pytest.raises(UsageError, match="no endpoint for the role"):
        ClientConfig().endpoint("judge")


def test_a_run_stops_before_it_spends_more_than_its_limit() -> None:
    async def use(client: Client) -> list[Any]:
        calls = [client.ask_json(question(str(i)), Verdict) for i in range(50)]
        return await asyncio.gather(*calls, return_exceptions=True)

    server = Server(latency_s=0.01)
    replies = with_server(server, use, {"max_usd": 0.01}, price=Price(prompt=5.0, completion=10.0))
    stopped = [r for r in replies if isinstance(r, BudgetExceeded)]
    spent = sum(call.cost_usd for r in replies if isinstance(r, Answered) for call in r.calls)
    assert stopped and 0 < spent <= 0.01
    assert len(stopped) + len([r for r in replies if isinstance(r, Answered)]) == 50


def test_strict_replay_gives_the_recorded_answers_without_any_connection(tmp_path: Path) -> None:
    def cache(mode: str) -> dict[str, Any]:
        return {"cache": mode, "cache_file": tmp_path / "replies.sqlite"}

    server = Server()
    recorded = ask(server, cache=cache("record"))
    again = ask(server, cache=cache("replay"))
    assert isinstance(recorded, Answered) and isinstance(again, Answered)
    assert again.value == recorded.value and again.calls[0].cached and len(server.requests) == 1

    async def offline() -> tuple[Answered[Any] | Failed, Answered[Any] | Failed]:
        config = ClientConfig(judge=Endpoint(model="m", base_url="http://127.0.0.1:9/v1"), **cache("replay-strict"))
        client = Client(config, environment={})
        return await client.ask_json(question(), Verdict), await client.ask_json(question(seed=2), Verdict)

    known, unknown = asyncio.run(offline())
    assert isinstance(known, Answered) and known.value == recorded.value
    assert isinstance(unknown, Failed) and unknown.kind == "not_recorded"
    with pytest.raises(UsageError, match="record them first"):
        Client(ClientConfig(cache="replay-strict", cache_file=tmp_path / "none.sqlite"))


def test_failures_are_never_stored(tmp_path: Path) -> None:
    cache = {"cache": "replay", "cache_file": tmp_path / "replies.sqlite"}
    assert isinstance(ask(Server(always("500")), cache=cache, max_retries=0), Failed)
    assert isinstance(ask(Server(), cache=cache), Answered)


def test_concurrency_grows_while_it_works_and_shrinks_when_told_to_slow_down() -> None:
    async def many(client: Client) -> int:
        await asyncio.gather(*(client.ask_json(question(str(i)), Verdict) for i in range(200)))
        return client.concurrency("judge")

    calm = Server(latency_s=0.005)
    patient = {"max_concurrency": 60, "attempt_timeout_s": 20.0}  # on a busy machine half a second is soon over
    assert with_server(calm, many, **patient) == 60
    assert calm.most_in_flight <= 60
    # One rate-limit answer at the first question: slow start ends there.
    hit = Server(lambda q, n: "429" if q == "0" and n == 0 else None, latency_s=0.005)
    assert 12 <= with_server(hit, many, **patient) < 40


def test_requests_per_minute_are_kept() -> None:
    async def many(client: Client) -> float:
        started = time.monotonic()
        await asyncio.gather(*(client.ask_json(question(str(i)), Verdict) for i in range(62)))
        return time.monotonic() - started

    # 60 at once (one minute's worth), then one per second.
    assert with_server(Server(), many, requests_per_minute=60) >= 1.9


def test_endpoints_without_schema_support_are_told_the_schema_in_words() -> None:
    server = Server()
    assert isinstance(ask(server, structured="none"), Answered)
    assert "response_format" not in server.requests[0]
    assert '"score"' in server.requests[0]["messages"][-1]["content"]
    ask(server)
    schema = server.requests[1]["response_format"]["json_schema"]
    assert schema["strict"] and schema["schema"]["additionalProperties"] is False


def test_a_damaged_recorded_reply_is_one_clear_error_and_never_an_answer(tmp_path: Path) -> None:
    options = {"cache": "replay", "cache_file": tmp_path / "replies.sqlite"}
    server = Server()
    ask(server, cache=options)
    db = sqlite3.connect(tmp_path / "replies.sqlite")
    db.execute("UPDATE replies SET reply=replace(reply, 'score', 'scare')")
    db.commit()
    db.close()
    with pytest.raises(DataError, match=r"(?s)not what was stored.*move the file"):
        ask(server, cache=options)
