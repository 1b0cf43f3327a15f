"""Servers on loopback: an aiohttp application in the test's event loop or in a thread of its own, or a process."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from aiohttp import web

JSON_SERVER = """
import http.server, json, sys

class JsonHandler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def asked(self):
        return self.rfile.read(int(self.headers["Content-Length"] or 0))

    def reply(self, status, value):
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args):
        pass

def serve(handler):
    port = int(sys.argv[sys.argv.index("--port") + 1])
    http.server.ThreadingHTTPServer(("127.0.0.1", port), handler).serve_forever()
"""
"""The start of a script that stands in for a server's process and gets its port as that would; needs no package."""


@asynccontextmanager
async def listening(app: web.Application, **runner_options: Any) -> AsyncIterator[str]:
    """Serve until the body ends. Yields the address, `http://127.0.0.1:PORT`."""
    runner = web.AppRunner(app, shutdown_timeout=0.2, **runner_options)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@contextmanager
def served_in_a_thread(app: web.Application) -> Iterator[str]:
    """The same for code that owns its event loop."""
    address, ready, done = [""], threading.Event(), threading.Event()

    async def serve() -> None:
        async with listening(app) as address[0]:
            ready.set()
            await asyncio.to_thread(done.wait)

    thread = threading.Thread(target=lambda: asyncio.run(serve()), name="test-server")
    thread.start()
    try:
        assert ready.wait(60)
        yield address[0]
    finally:
        done.set()
        thread.join(30)
