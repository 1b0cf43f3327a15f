"""What happens to a real SGLang server that is killed, and what refuses to start."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from pathlib import Path

import pytest

from common.errors import UsageError
from envs.engine import EngineError, Generation, Sampling
from rl.rollout.checkpoint import read_tensors
from rl.rollout.config import RolloutConfig
from rl.rollout.server import SGLangServer

pytestmark = [pytest.mark.sglang, pytest.mark.slow, pytest.mark.timeout(900)]
PROMPT = tuple(5 + (7 * i) % 300 for i in range(40))


def test_killing_a_server_mid_request_fails_fast_and_a_replacement_serves_the_current_weights(
    pool, runner, checkpoints
):
    """The engine's own caller gets EngineError at once; the pool's caller only waits for the replacement."""
    sampling = Sampling(300)

    async def scenario() -> tuple[float, Generation, dict[str, str], dict[str, str]]:
        await pool.update_weights(read_tensors(checkpoints[1]), 5)
        expected = await pool.checksums()
        engine, old_pid = pool.engines[0], pool.servers[0].pid
        direct = asyncio.create_task(engine.generate(PROMPT, sampling, seed=1, request_id="direct"))
        pooled = asyncio.create_task(pool.generate(PROMPT, sampling, seed=2, request_id="pooled"))
        await asyncio.sleep(0.4)
        os.kill(old_pid, signal.SIGKILL)
        killed = time.monotonic()
        with pytest.raises(EngineError):
            await direct
        noticed_s = time.monotonic() - killed
        generation = await pooled
        assert pool.servers[0].pid != old_pid
        assert pool.replacements == 1
        return noticed_s, generation, expected, await pool.checksums()

    noticed_s, generation, expected, actual = runner.run(scenario())
    assert noticed_s < 5
    assert len(generation.ids) == 300
    assert [s.version for s in generation.versions] == [5]
    assert actual == expected
    assert pool.version == pool.engines[0].version == 5


def test_a_taken_port_is_one_clear_error_and_starts_nothing(checkpoints, tmp_path: Path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        config = RolloutConfig(port=taken.getsockname()[1])
        server = SGLangServer(checkpoints[0], config, tmp_path)
        with pytest.raises(UsageError, match="taken"):
            server.start()
        assert server.pid is None


def test_a_server_that_ends_while_starting_is_reported_with_its_log(checkpoints, tmp_path: Path, runner):
    config = RolloutConfig(device="cpu", extra_flags=("--no-such-flag",))
    server = SGLangServer(checkpoints[0], config, tmp_path)
    server.start()
    pid = server.pid
    with pytest.raises(EngineError, match="no-such-flag"):
        runner.run(server.wait_ready())
    runner.run(server.stop())
    with pytest.raises(ProcessLookupError):
        os.killpg(pid, 0)


def test_without_the_environment_the_error_names_the_command_that_builds_it(checkpoints, tmp_path: Path):
    server = SGLangServer(checkpoints[0], RolloutConfig(python=tmp_path / "python"), tmp_path)
    with pytest.raises(UsageError, match="make sglang"):
        server.start()
