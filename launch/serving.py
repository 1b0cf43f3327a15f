"""`osim serve`: one SGLang server in the foreground. Runs in the process of the command; the server dies with it.

Where no variable holds its key, a fresh one lies in LOGS/api-key-PORT, a file for its owner alone, while it serves.
"""

from __future__ import annotations

import asyncio
import os
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
    key_file = logs / f"api-key-{server.port}"
    try:
        await server.wait_ready()
        key = f"${config.api_key_variable}"
        if config.api_key_variable is None:
            write_secret(key_file, server.api_key)
            key = str(key_file)
        say(f"{model}: {server.url}  (key: {key}; log: {server.log}; Ctrl-C ends)")
        while server.alive:
            await asyncio.sleep(POLL_S)
        raise ServerEnded(f"the server ended\n{server.log_tail()}", where=server.url, fix=f"see {server.log}")
    except EngineError as e:
        raise ServerEnded(str(e), where=str(model), fix=f"see {server.log}") from e
    except asyncio.CancelledError:
        say("stopping")
    finally:
        key_file.unlink(missing_ok=True)
        await server.stop()


def write_secret(path: Path, secret: str) -> None:
    """A file that no other user can read, whatever the umask is, at no moment."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(secret)
