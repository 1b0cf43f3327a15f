"""JSON over HTTP for engine clients: answers of any status, named failures, connections kept or given up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from rl.rollout.http import HttpFailed, JsonHttp, Reply
from tests.loopback import listening


class Upstream:
    """Echoes, refuses, hangs."""

    def __init__(self) -> None:
        self.peers: set[tuple[str, int]] = set()
        self.gone = 0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        self.peers.add(request.transport.get_extra_info("peername"))
        if request.path == "/hang":
            try:
                await asyncio.sleep(30)
            except asyncio.CancelledError:
                self.gone += 1
                raise
        if request.path == "/refuse":
            return web.json_response({"success": False}, status=400)
        if request.path == "/text":
            return web.Response(text="not JSON")
        return web.json_response(await request.json() if request.can_read_body else {"method": request.method})


@asynccontextmanager
async def upstream() -> AsyncIterator[tuple[Upstream, JsonHttp]]:
    server = Upstream()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.answer)
    async with listening(app, handler_cancellation=True) as address:
        http = JsonHttp(f"{address}/")
        try:
            yield server, http
        finally:
            await http.close()


def test_bodies_statuses_and_texts_come_back_and_connections_are_kept() -> None:
    async def main() -> tuple[list[Reply], int]:
        async with upstream() as (server, http):
            replies = [
                await http.request("/echo", {"a": [1, 2]}, 5, method="POST"),
                await http.request("/info", None, 5, method="GET"),
                await http.request("/refuse", {}, 5, method="POST"),
                await http.request("/text", {}, 5, method="POST"),
            ]
            return replies, len(server.peers)

    (echo, info, refused, text), connections = asyncio.run(main())
    assert echo.json() == {"a": [1, 2]} and info.json() == {"method": "GET"}
    assert refused.status == 400 and refused.json() == {"success": False}
    assert text.text == "not JSON" and connections == 1
    with pytest.raises(ValueError):
        text.json()


def test_a_request_that_is_late_or_cancelled_closes_its_connection_and_the_next_one_works() -> None:
    async def main() -> tuple[str, int, int]:
        async with upstream() as (server, http):
            with pytest.raises(HttpFailed) as late:
                await http.request("/hang", {}, 0.2, method="POST")
            waiting = asyncio.create_task(http.request("/hang", {}, 30, method="POST"))
            await asyncio.sleep(0.2)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            after = await http.request("/echo", {}, 5, method="POST")
            for _ in range(100):
                if server.gone == 2:
                    break
                await asyncio.sleep(0.05)
            return str(late.value), server.gone, after.status

    assert asyncio.run(main()) == ("no answer within 0.2 s", 2, 200)


def test_a_server_that_is_not_there_is_a_named_failure() -> None:
    async def main() -> None:
        http = JsonHttp("http://127.0.0.1:9")
        try:
            await http.request("/x", {}, 5, method="POST")
        finally:
            await http.close()

    with pytest.raises(HttpFailed, match="ConnectionRefusedError"):
        asyncio.run(main())


def test_a_client_serves_one_event_loop_after_another() -> None:
    async def main(http: JsonHttp) -> int:
        async with upstream() as (_, other):
            http._url = other._url
            status = (await http.request("/echo", {}, 5, method="POST")).status
            await http.close()
            return status

    http = JsonHttp("http://127.0.0.1:9")
    assert [asyncio.run(main(http)), asyncio.run(main(http))] == [200, 200]
