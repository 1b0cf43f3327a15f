"""OpenAI-compatible servers for evaluations: in a thread of their own, because an evaluation owns its event loop.

`answering` serves what a function says; `engine_answers` makes such a function of a rollout engine and a renderer, so
that the same weights can be evaluated as local weights and as an API.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

from envs.types import Message
from tests.loopback import served_in_a_thread

Answer = Callable[[dict[str, Any]], Awaitable[str]]


@dataclass
class Served:
    """Where it is, and what it was asked."""

    url: str = ""
    requests: list[dict[str, Any]] = field(default_factory=list)

    @property
    def ref(self) -> str:
        return f"api:tiny@{self.url}"


@contextmanager
def answering(answer: Answer) -> Iterator[Served]:
    """Serve /v1/chat/completions on a free port until the body ends."""
    served = Served()

    async def complete(request: web.Request) -> web.Response:
        body = await request.json()
        served.requests.append(body)
        text = await answer(body)
        usage = {"prompt_tokens": len(json.dumps(body["messages"])), "completion_tokens": len(text)}
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return web.json_response({"id": "1", "object": "chat.completion", "choices": [choice], "usage": usage})

    app = web.Application()
    app.router.add_post("/v1/chat/completions", complete)
    with served_in_a_thread(app) as address:
        served.url = f"{address}/v1"
        yield served


def engine_answers(model: Path) -> Answer:
    """Chat completions by the embedded engine, rendered as osim renders."""
    from data_tools.renderer import Renderer
    from envs.engine import Sampling
    from envs.tokens import Prompts, TokenContext
    from rl.rollout.embedded import EmbeddedEngine

    renderer, engine = Renderer.load(model), EmbeddedEngine(model, max_context=4096)

    numbers = itertools.count()

    async def answer(body: dict[str, Any]) -> str:
        messages = [Message(m["role"], m["content"]) for m in body["messages"]]
        prompt = tuple(TokenContext(Prompts(renderer), "x", learnable=False).render(tuple(messages)))
        sampling = Sampling(
            body["max_completion_tokens"], body["temperature"], body.get("top_p", 1.0), stop_ids=(renderer.end_id,)
        )
        generation = await engine.generate(prompt, sampling, seed=body["seed"], request_id=str(next(numbers)))
        ids = generation.ids[:-1] if generation.finish == "stop" else generation.ids
        return renderer.decode(ids)

    return answer


async def judge_by_length(body: dict[str, Any]) -> str:
    """A judge's reply that depends on the transcript."""
    text = body["messages"][-1]["content"]
    return json.dumps({"score": round(len(text) % 97 / 97, 4)})


async def say_more(body: dict[str, Any]) -> str:
    """A partner."""
    return f"Tell me more, you said {len(body['messages'])} things."
