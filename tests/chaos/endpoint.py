"""An OpenAI-compatible endpoint in a process of its own that resets, stalls, lies and breaks off when it is told to.

What it answers follows from the conversation alone, never from seeds, repeats or re-asks: so a disturbed run can be
compared with the undisturbed one.
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
import time
import urllib.error
import urllib.request
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import xxhash
from aiohttp import web

from tests.chaos.process import Child, call

PASSING = (
    "reset",
    "429",
    "500",
    "stall",
    "slow",
    "broken off",
    "broken JSON",
    "a web page",
    "no choices",
    "null content",
    "wrong types",
    "wrong schema",
    "prose",
    "not UTF-8",
)
"""Faults that hit a question when it is asked first."""
NONCE = re.compile(r"-[0-9a-f]{16}(?=>)")
"""Of a fenced block's tag: it depends on the seed, which a second try changes."""
STALL_S, SLOW_S = 300.0, 0.4
READY_S = 60.0


class Endpoint:
    """One server on a port that stays its own when it is started again."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        self.child: Child | None = None
        self._number = 0
        self.healthy()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def start(self) -> None:
        """Serve, and return when it answers."""
        self.child = call(serve, self.port, str(self.folder), log=self.folder / "log")
        self.child.lasting = True
        end = time.monotonic() + READY_S
        while time.monotonic() < end:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/", timeout=5):
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.02)
        raise RuntimeError(f"the endpoint did not start: {self.child.text()}")

    def fail(self, kind: str, *, share: float = 1.0, seed: int = 0, for_ever: bool = False) -> None:
        """From now on, a share of the questions meets this fault: when asked first, or whenever asked."""
        self._number += 1
        plan = {"number": self._number, "kind": kind, "share": share, "seed": seed, "for_ever": for_ever}
        temporary = self.folder / "fault.new"
        temporary.write_text(json.dumps(plan))
        temporary.replace(self.folder / "fault.json")
        (self.folder / "injected").write_text("")

    def healthy(self) -> None:
        """No faults from now on."""
        self.fail("none", share=0.0)

    @property
    def injected(self) -> int:
        """Faults since the last `fail`."""
        return len((self.folder / "injected").read_text().splitlines())


def serve(port: int, folder: str) -> None:
    """The process."""
    asyncio.run(_Server(Path(folder)).run(port))


class _Server:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: Counter[str] = Counter()
        self.number = -1

    async def run(self, port: int) -> None:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self.complete)
        app.router.add_get("/", lambda _: asyncio.sleep(0, web.Response(text="here")))
        runner = web.AppRunner(app, shutdown_timeout=0.2)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port, reuse_address=True).start()
        await asyncio.Event().wait()

    async def complete(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        question = conversation(body)
        plan = json.loads((self.folder / "fault.json").read_text())
        if plan["number"] != self.number:
            self.number = plan["number"]
            self.asked.clear()
        key = xxhash.xxh3_64_hexdigest(question.encode())
        self.asked[key] += 1
        hit = Random(f"{plan['seed']}:{key}").random() < plan["share"] and (plan["for_ever"] or self.asked[key] == 1)
        kind = plan["kind"]
        if hit and kind in ("wrong schema", "prose", "wrong types") and "response_format" not in body:
            kind = "500"  # to a free question any text is an answer
        if hit:
            with (self.folder / "injected").open("a") as f:
                f.write(f"{kind}\n")
            if kind == "slow":
                await asyncio.sleep(SLOW_S)
            elif (failed := await broken(kind, request)) is not None:
                return failed
        return web.json_response(completion(answer(body, question)))


def conversation(body: dict[str, Any]) -> str:
    """What is asked, without what a re-ask adds: later messages, a note at the end."""
    said = []
    for message in body["messages"]:
        if message["role"] == "assistant":
            break
        said.append(message["content"].partition("\n\nYour last answer")[0])
    return NONCE.sub("", "\n".join(said))


def answer(body: dict[str, Any], question: str) -> str:
    """A verdict, a context, or words, by what is asked for."""
    rng = Random(question)
    if "social context" in question:
        return json.dumps({k: f"{k} {rng.randrange(10**6)}" for k in ("speaker", "relation", "situation", "goal")})
    if "response_format" in body:
        return json.dumps({"score": rng.randrange(1000) / 1000})
    return f"I would say {rng.randrange(10**6)}."


def completion(text: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    return {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice], "usage": usage}


async def broken(kind: str, request: web.Request) -> web.StreamResponse | None:
    """The response that a fault makes of an answer."""
    assert request.transport is not None
    if kind == "reset":
        request.transport.abort()
        return web.Response()
    if kind in ("429", "500", "401"):
        headers = {"Retry-After": "0.05"} if kind == "429" else {}
        return web.json_response({"error": {"message": "no"}}, status=int(kind), headers=headers)
    if kind == "stall":
        await asyncio.sleep(STALL_S)
        return web.Response()
    if kind == "broken off":
        response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": "5000"})
        await response.prepare(request)
        await response.write(b'{"choices": [{"message": {"content": "I would say 1')
        request.transport.close()
        return response
    bodies: dict[str, bytes] = {
        "broken JSON": b'{"choices": [',
        "a web page": b"<html>Bad gateway</html>",
        "no choices": b'{"choices": [], "error": "overloaded"}',
        "null content": json.dumps(completion(None)).encode(),
        "wrong types": b'{"choices": {"0": 1}, "usage": "many"}',
        "wrong schema": json.dumps(completion('{"score": "high", "speaker": 3}')).encode(),
        "prose": json.dumps(completion("Sure! I would give this a 7 out of 10.")).encode(),
        "not UTF-8": b'{"choices": [{"message": {"content": "\xff\xfe"}}]}',
    }
    kind_of = "text/html" if kind == "a web page" else "application/json"
    return web.Response(body=bodies[kind], content_type=kind_of)
