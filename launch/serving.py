"""`osim serve`: one SGLang server in the foreground. Runs in the process of the command; the server dies with it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from common.errors import OsimError, UsageError
from envs.engine import EngineError
from rl.rollout.config import RolloutConfig
from rl.rollout.server import SGLangServer

POLL_S = 0.5


class ServerEnded(OsimError):
    """The server did not come up, or ended by itself."""


async def serve_until_stopped(model: Path, config: RolloutConfig, logs: Path, say: Callable[[str], None]) -> None:
    """Until Ctrl-C. Raises UsageError for a taken port or missing model, ServerEnded when the server is gone."""
    if not (model / "config.json").is_file():
        raise UsageError("no Hugging Face model here", where=str(model), fix="give a folder with config.json")
    server = SGLangServer(model, config, logs)
    server.start()
    try:
        await server.wait_ready()
        say(f"{model}: {server.url}  (log: {server.log}; Ctrl-C ends)")
        while server.alive:
            await asyncio.sleep(POLL_S)
        raise ServerEnded(f"the server ended\n{server.log_tail()}", where=server.url, fix=f"see {server.log}")
    except EngineError as e:
        raise ServerEnded(str(e), where=str(model), fix=f"see {server.log}") from e
    except asyncio.CancelledError:
        say("stopping")
    finally:
        await server.stop()
