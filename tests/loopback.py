"""An aiohttp application on a free port of loopback, in the test's event loop or in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from aiohttp import web


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
