"""JSON over HTTP to one server, for engine clients that keep hundreds of requests in flight.

aiohttp, because httpx spends milliseconds of CPU on each request when hundreds share its pool (docs/benchmarks.md).
A pool belongs to the event loop that made it. Cancelling a request closes its connection, which aborts it on the
server.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson

MAX_CONNECTIONS = 1024
KEEP_ALIVE_S = 3.0
"""Below the 5 s after which uvicorn closes an idle connection: a request never meets one that is just closing."""
JSON_HEADERS = {"Content-Type": "application/json"}


class HttpFailed(Exception):
    """No answer came: refused, reset, timed out."""


@dataclass(frozen=True)
class Reply:
    """An answer of any status."""

    status: int
    content: bytes

    @property
    def text(self) -> str:
        return self.content.decode(errors="replace")

    def json(self) -> Any:
        """Raises ValueError."""
        return orjson.loads(self.content)


class JsonHttp:
    """Requests to `url`. Proxies of the environment are not used."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")
        self._session: aiohttp.ClientSession | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def request(self, path: str, body: Mapping[str, Any] | None, timeout_s: float, *, method: str) -> Reply:
        """One request. Raises HttpFailed."""
        data = None if body is None else orjson.dumps(body)
        headers = None if body is None else JSON_HEADERS
        try:
            async with asyncio.timeout(timeout_s):
                async with self._pool().request(method, f"{self._url}{path}", data=data, headers=headers) as answer:
                    return Reply(answer.status, await answer.read())
        except TimeoutError:
            raise HttpFailed(f"no answer within {timeout_s:g} s") from None
        except (aiohttp.ClientError, OSError) as e:
            raise HttpFailed(f"{type(e).__name__}: {e}") from e

    async def close(self) -> None:
        """Drop the connections."""
        if self._session is not None and self._loop is asyncio.get_running_loop():
            await self._session.close()
        self._session = None

    def _pool(self) -> aiohttp.ClientSession:
        loop = asyncio.get_running_loop()
        if self._session is None or self._loop is not loop:
            self._loop = loop
            connector = aiohttp.TCPConnector(limit=MAX_CONNECTIONS, keepalive_timeout=KEEP_ALIVE_S)
            # Deadlines are per request.
            self._session = aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None))
        return self._session
