"""A rollout server that answers SGLang's /generate after a fixed latency.

    python -m tests.bench.envs.latency_server SECONDS

It does next to nothing itself (a bare protocol, one ready answer), so that a benchmark measures its client. Prints
its port.
"""

from __future__ import annotations

import asyncio
import sys

import orjson
import uvloop

TOKENS = 64
ANSWER = orjson.dumps(
    {
        "output_ids": list(range(65, 65 + TOKENS)),
        "meta_info": {
            "finish_reason": {"type": "length", "length": TOKENS},
            "output_token_logprobs": [[-0.5, i, None] for i in range(65, 65 + TOKENS)],
            "weight_version": "1",
            "cached_tokens": 0,
        },
    }
)
REPLY = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(ANSWER) + ANSWER


class Generate(asyncio.Protocol):
    """One connection with one request at a time."""

    def __init__(self, latency_s: float) -> None:
        self._latency_s, self._data = latency_s, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._data += data
        head, found, rest = self._data.partition(b"\r\n\r\n")
        lower = head.lower()
        length = int(lower.partition(b"content-length:")[2].split(b"\r\n")[0]) if b"content-length:" in lower else 0
        if found and len(rest) >= length:
            self._data = rest[length:]
            asyncio.get_running_loop().call_later(self._latency_s, self._transport.write, REPLY)  # type: ignore[attr-defined]


async def main() -> None:
    latency_s = float(sys.argv[1])
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Generate(latency_s), "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
