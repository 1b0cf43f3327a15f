"""One rollout server of an RL job: `python -m launch.allocation.server RUN NOTES COUNT`, once for each server.

Starts SGLang for the run's model on this node's GPUs, publishes its URL when it answers, and starts it again on the
same port when it dies: the actor's pool then gives it the current weights. The job's script has drawn the key of all
servers. Ends when the main step is over. What does not come up within rollout.start_timeout_s ends with exit 3.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from common.config import load
from common.errors import GateError, run_main
from envs.engine import EngineError
from launch.allocation.config import recipe_of
from launch.allocation.roles import POLL_S, Notes
from rl.config import RLConfig
from rl.rollout.api_key import KEY_VARIABLE
from rl.rollout.server import SGLangServer
from rl.weight_sync.group import own_address


def main() -> None:
    """Serve as the process of this number that Slurm started."""
    run, notes = Path(sys.argv[1]), Notes(Path(sys.argv[2]))
    number, local = int(os.environ["SLURM_PROCID"]), int(os.environ["SLURM_LOCALID"])
    # Preemption and cancellation signal every process at once; the actor still saves, so the server stays.
    signal.signal(signal.SIGTERM, lambda *_: None)
    asyncio.run(serve(run, notes, number, local, own_address(f"http://{os.environ['MASTER_ADDR']}")))


async def serve(run: Path, notes: Notes, number: int, local: int, host: str) -> None:
    """Until the main step is over."""
    config = load(RLConfig, recipe_of(run))
    context = max(config.rollout.max_context, config.sampling.max_context_tokens)
    key = config.rollout.api_key_variable or KEY_VARIABLE
    rollout = config.rollout.model_copy(
        update={"host": host, "port": None, "max_context": context, "api_key_variable": key}
    )
    server = SGLangServer(config.model, rollout, run / "logs" / f"server{number}", index=local)
    try:
        server.start()
        await server.wait_ready()
        notes.publish_server(number, server.url)
        print(f"serving {config.model} at {server.url}", flush=True)
        while not notes.over:
            if not server.alive:
                print(f"the server ended; starting it again\n{server.log_tail()}", flush=True)
                await _restart(server)
            await asyncio.sleep(POLL_S)
    except EngineError as e:
        raise GateError(str(e), where=f"server {number} on {host}", fix=f"see {server.log}") from e
    finally:
        await server.stop()


async def _restart(server: SGLangServer) -> None:
    """On the same port, which the pool knows."""
    port = server.port
    server.kill()
    server.config = server.config.model_copy(update={"port": port - server.index})
    server.start()
    await server.wait_ready()


if __name__ == "__main__":
    run_main(main)
