"""A headless Chromium driven over its DevTools protocol; enough to open a page, run a script and hear errors."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

START_TIMEOUT_S = 30.0
REPLY_TIMEOUT_S = 30.0


def chromium() -> str:
    """Path of a Chromium; skips the test where there is none."""
    found = next((p for n in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(n))), None)
    if found is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    return found


class Page:
    """One page. `problems` collects exceptions, console errors and blocked requests."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket, self._sent = socket, 0
        self.problems: list[str] = []

    async def command(self, method: str, **params: Any) -> dict[str, Any]:
        self._sent += 1
        sent = self._sent
        await self._socket.send_json({"id": sent, "method": method, "params": params})
        while True:
            reply = json.loads((await self._socket.receive(timeout=REPLY_TIMEOUT_S)).data)
            if reply.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled"):
                self.problems.append(json.dumps(reply["params"])[:500])
            if reply.get("id") == sent:
                return reply["result"]

    async def open(self, url: str) -> float:
        """Seconds until the page and its scripts were loaded."""
        started = time.monotonic()
        await self.command("Page.navigate", url=url)
        await self.until("document.readyState === 'complete' && location.href !== 'about:blank'")
        return time.monotonic() - started

    async def run(self, script: str) -> Any:
        reply = await self.command("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in reply, reply
        return reply["result"].get("value")

    async def until(self, condition: str, timeout_s: float = 15.0) -> None:
        deadline = time.monotonic() + timeout_s
        while not await self.run(condition):
            assert time.monotonic() < deadline, f"never true: {condition}"
            await asyncio.sleep(0.03)


def browse(profile: Path, visit: Callable[[Page], Awaitable[None]], *, width: int = 1280) -> None:
    """Start Chromium, give `visit` a page, end the browser."""
    process = subprocess.Popen(
        [
            *(chromium(), "--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0"),
            *(f"--user-data-dir={profile}", f"--window-size={width},900", "about:blank"),
        ],
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        asyncio.run(_visit(profile, visit))
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(15)


async def _visit(profile: Path, visit: Callable[[Page], Awaitable[None]]) -> None:
    port_file = profile / "DevToolsActivePort"
    deadline = time.monotonic() + START_TIMEOUT_S
    while not port_file.is_file() or not port_file.read_text().strip():
        assert time.monotonic() < deadline, "Chromium did not start"
        await asyncio.sleep(0.05)
    port = port_file.read_text().split()[0]
    async with aiohttp.ClientSession() as session:
        target = await (await session.put(f"http://127.0.0.1:{port}/json/new?about:blank")).json()
        async with session.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=0) as socket:
            page = Page(socket)
            for domain in ("Page", "Runtime", "Log"):
                await page.command(f"{domain}.enable")
            await visit(page)
