"""Bodies of HTTP answers that cannot fill the memory: a limit on what an endpoint may send, however it is encoded.

For httpx clients as a response hook, before the body is read. An answer beyond the limit is an httpx.ReadError, which
callers treat like a broken connection.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
from httpx_aiohttp import HttpxAiohttpClient

MAX_BODY_BYTES = 32 << 20
MAX_COMPRESSED_BYTES = 64 << 10
"""gzip and deflate expand at most about a thousandfold; other encodings are not asked for."""
ACCEPT_ENCODING = "gzip, deflate"


class _Bounded(httpx.AsyncByteStream):
    def __init__(self, stream: httpx.AsyncByteStream, most: int) -> None:
        self._stream, self._most = stream, most

    async def __aiter__(self) -> AsyncIterator[bytes]:
        received = 0
        async for chunk in self._stream:
            received += len(chunk)
            if received > self._most:
                raise httpx.ReadError(f"the answer is larger than {self._most} bytes")
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()


async def bound_body(response: httpx.Response) -> None:
    """Response hook of an `httpx.AsyncClient` that sends `Accept-Encoding: ACCEPT_ENCODING`."""
    encoding = response.headers.get("content-encoding", "identity").lower()
    if encoding not in ("identity", "gzip", "deflate"):
        raise httpx.ReadError(f"an answer in the encoding {encoding:.20}, which was not asked for")
    most = MAX_BODY_BYTES if encoding == "identity" else MAX_COMPRESSED_BYTES
    if isinstance(response.stream, httpx.AsyncByteStream):
        response.stream = _Bounded(response.stream, most)


def bounded_client(timeout_s: float) -> httpx.AsyncClient:
    """A client for the openai SDK. Redirects are followed; httpx drops the key where they leave the host.

    On aiohttp: httpx's own pool costs milliseconds of CPU a request when hundreds share it (docs/benchmarks.md).
    """
    return HttpxAiohttpClient(
        timeout=timeout_s,
        follow_redirects=True,
        limits=httpx.Limits(max_connections=1000, max_keepalive_connections=100),
        headers={"Accept-Encoding": ACCEPT_ENCODING},
        event_hooks={"response": [bound_body]},
    )
