"""JSON over HTTP to one server, for engine clients that keep hundreds of requests in flight.

A protocol of asyncio around httptools (llhttp, uvicorn's parser), because the same requests of SGLangEngine take 2.7
to 3 times as long on aiohttp (docs/benchmarks.md). A connection carries one request at a time; one that failed, timed
out or was cancelled is dropped, which aborts the request on the server. Connections belong to the event loop that
made them. A server may repeat its caller's key: it is taken out of every answer.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import urlsplit

import httptools
import orjson

from common.redact import MARK, MIN_SECRET_CHARS

MAX_CONNECTIONS = 1024
MAX_REPLY_BYTES = 256 << 20
"""Log-probs of a long context are a few MiB."""
KEEP_ALIVE_S = 3.0
"""Below the 5 s after which uvicorn closes an idle connection: a request never meets one that is just closing."""
FIRST_FINAL_STATUS = 200


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
    """Requests to `url`, with the key where there is one. Proxies of the environment are not used."""

    def __init__(self, url: str, *, api_key: str | None = None) -> None:
        self._url, self._api_key = url.rstrip("/"), api_key
        self._secret = api_key.encode() if api_key and len(api_key) >= MIN_SECRET_CHARS else b""
        self._pool: _Pool | None = None

    async def request(self, path: str, body: Mapping[str, Any] | None, timeout_s: float, *, method: str) -> Reply:
        """One request. Raises HttpFailed."""
        pool = self._pool
        if pool is None or pool.loop is not asyncio.get_running_loop():
            pool = self._pool = _Pool(self._url, self._api_key)
        try:
            async with asyncio.timeout(timeout_s), pool.slots:
                connection = await pool.take()
                try:
                    reply = await connection.ask(pool.message(method, path, body))
                except BaseException:
                    connection.drop()
                    raise
                pool.give_back(connection)
                return self._without_key(reply)
        except TimeoutError:
            raise HttpFailed(f"no answer within {timeout_s:g} s") from None
        except (httptools.HttpParserError, OSError, UnicodeError) as e:
            raise HttpFailed(f"{type(e).__name__}: {e}") from e

    def _without_key(self, reply: Reply) -> Reply:
        if self._secret and self._secret in reply.content:
            return Reply(reply.status, reply.content.replace(self._secret, MARK.encode()))
        return reply

    async def close(self) -> None:
        """Drop the connections."""
        pool, self._pool = self._pool, None
        if pool is not None and pool.loop is asyncio.get_running_loop():
            pool.close()


class _Pool:
    """Connections of one event loop to one server, and the words that every request to it has."""

    def __init__(self, url: str, api_key: str | None) -> None:
        self.loop = asyncio.get_running_loop()
        self.slots = asyncio.Semaphore(MAX_CONNECTIONS)
        parts = urlsplit(url)
        self._path = parts.path
        self._headers = f"Host: {parts.netloc.rpartition('@')[2]}\r\nAccept: application/json\r\n"
        if api_key:
            self._headers += f"Authorization: Bearer {api_key}\r\n"
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if self._tls else 80)
        self._idle: list[_Connection] = []

    def message(self, method: str, path: str, body: Mapping[str, Any] | None) -> bytes:
        """One request as it travels."""
        head = f"{method} {self._path}{path} HTTP/1.1\r\n{self._headers}"
        if body is None:
            return f"{head}\r\n".encode()
        data = orjson.dumps(body)
        return f"{head}Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data

    async def take(self) -> _Connection:
        """The connection that was used last, or a new one."""
        oldest = self.loop.time() - KEEP_ALIVE_S
        while self._idle:
            connection = self._idle.pop()
            if connection.usable and connection.idle_since >= oldest:
                return connection
            connection.drop()
        _, made = await self.loop.create_connection(_Connection, self._host, self._port, ssl=self._tls)
        return made

    def give_back(self, connection: _Connection) -> None:
        if connection.usable:
            connection.idle_since = self.loop.time()
            self._idle.append(connection)
        else:
            connection.drop()

    def close(self) -> None:
        for connection in self._idle:
            connection.drop()
        self._idle.clear()


class _Connection(asyncio.Protocol):
    """One request at a time; httptools calls the `on_` methods."""

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._answer: asyncio.Future[Reply] | None = None
        self._body: list[bytes] = []
        self._received = 0
        self.usable = False
        """Open, and nothing of an answer is outstanding."""
        self.idle_since = 0.0

    def ask(self, message: bytes) -> asyncio.Future[Reply]:
        """Send a request. The future raises OSError or HttpParserError."""
        self.usable = False
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(message)
        return self._answer

    def drop(self) -> None:
        self.usable = False
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is not a subclass
        self.usable = True

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as e:
            self._fail(e)

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(exc or ConnectionResetError("the server closed the connection"))

    def on_message_begin(self) -> None:
        self._body.clear()
        self._received = 0

    def on_body(self, body: bytes) -> None:
        self._received += len(body)
        if self._received > MAX_REPLY_BYTES:
            self._body.clear()
            self._fail(ConnectionAbortedError(f"an answer of more than {MAX_REPLY_BYTES >> 20} MiB"))
            self._transport.abort()
        else:
            self._body.append(body)

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < FIRST_FINAL_STATUS:
            return  # 100 Continue and its like come before the answer
        if self._answer is None or self._answer.done():
            self.drop()  # nobody asked
            return
        self.usable = self._parser.should_keep_alive()
        self._answer.set_result(Reply(status, b"".join(self._body)))

    def _fail(self, error: Exception) -> None:
        self.usable = False
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)
