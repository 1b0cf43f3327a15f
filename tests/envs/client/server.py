"""A real OpenAI-compatible server on this machine that fails on request.

Answers depend on the first user message only, so that a repeated or re-asked question has the same answer. Faults are
chosen by a pure function of the question and of how often it was asked.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any

from aiohttp import web

FAULTS = ("429", "500", "hang", "malformed", "truncated", "wrong_schema", "prose", "no_choices")
CONTENT_FAULTS = ("wrong_schema", "prose")
HANG_S = 600.0

Chooser = Callable[[str, int], str | None]


def at_rate(rate: float, seed: int = 0) -> Chooser:
    """Any fault with probability `rate`, drawn per question and repetition."""

    def choose(question: str, times: int) -> str | None:
        rng = Random(f"{seed}:{question}:{times}")
        return rng.choice(FAULTS) if rng.random() < rate else None

    return choose


def always(fault: str, times: int = 10**9) -> Chooser:
    """The same fault for the first `times` requests of each question."""
    return lambda question, asked: fault if asked < times else None


@dataclass
class Server:
    """What happened, and what shall happen."""

    choose: Chooser = lambda question, times: None
    latency_s: float = 0.0
    answer: Callable[[dict[str, Any]], str] | None = None
    retry_after: str = "0.02"
    usage: bool = True
    url: str = ""
    asked: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    requests: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    in_flight: int = 0
    most_in_flight: int = 0

    async def complete(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.keys.append(request.headers.get("Authorization", ""))
        self.requests.append(body)
        question = next(m["content"] for m in body["messages"] if m["role"] == "user")
        fault = self.choose(question, self.asked[question])
        if fault in CONTENT_FAULTS and "response_format" not in body:
            fault = "500"  # To a free-text question any text is an answer.
        self.asked[question] += 1
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await asyncio.sleep(HANG_S if fault == "hang" else self.latency_s)
        finally:
            self.in_flight -= 1
        if fault:
            self.faults[fault] += 1
            return await _fail(request, fault, self.retry_after)
        text = self.answer(body) if self.answer else json.dumps({"score": score_of(question)})
        reply = completion(text)
        if not self.usage:
            del reply["usage"]
        return web.json_response(reply)


def score_of(question: str) -> float:
    return round(Random(question).random(), 6)


def completion(text: str) -> dict[str, Any]:
    return {
        "id": "1",
        "object": "chat.completion",
        "created": 0,
        "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110},
    }


async def _fail(request: web.Request, fault: str, retry_after: str) -> web.StreamResponse:
    if fault == "429":
        return web.json_response(
            {"error": {"message": "slow down"}}, status=429, headers={"Retry-After": retry_after}
        )
    if fault in ("500", "401", "400", "403"):
        return web.json_response({"error": {"message": "no, Bearer sk-abcdefghijklmnopqrstuv"}}, status=int(fault))
    if fault == "malformed":
        return web.Response(text='{"choices": [', content_type="application/json")
    if fault == "no_choices":
        return web.json_response({"choices": [], "error": "overloaded"})
    if fault == "wrong_schema":
        return web.json_response(completion('{"score": "high", "note": 3}'))
    if fault == "prose":
        return web.json_response(completion("Sure! I would give this a 7 out of 10."))
    if fault == "dropped":
        assert request.transport is not None
        request.transport.close()
        return web.Response()
    if fault == "truncated":
        response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": "5000"})
        await response.prepare(request)
        await response.write(b'{"choices": [{"message": {"content": "{\\"score\\": 1}')
        assert request.transport is not None
        request.transport.close()
        return response
    raise AssertionError(f"unknown fault {fault}")


@asynccontextmanager
async def serving(server: Server) -> AsyncIterator[Server]:
    """`server` on a free port, stopped at the end."""
    app = web.Application()
    app.router.add_post("/v1/chat/completions", server.complete)
    runner = web.AppRunner(app, shutdown_timeout=0.2)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    assert site._server is not None
    port = site._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
    server.url = f"http://127.0.0.1:{port}/v1"
    try:
        yield server
    finally:
        await runner.cleanup()


@contextmanager
def in_background(server: Server) -> Iterator[Server]:
    """`server` in a thread of its own, for callers that run their own event loop."""
    loop = asyncio.new_event_loop()
    ready = threading.Event()
    stop = asyncio.Event()

    async def serve() -> None:
        async with serving(server):
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        assert ready.wait(30)
        yield server
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()
