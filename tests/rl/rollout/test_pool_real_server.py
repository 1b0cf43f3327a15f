"""What happens to a real SGLang server that is killed, and what refuses to start."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from pathlib import Path

import psutil
import pytest

from common.errors import UsageError
from envs.engine import EngineError, Generation, Sampling
from rl.rollout.api_key import new_key
from rl.rollout.base import BUCKET_BYTES
from rl.rollout.checkpoint import read_tensors
from rl.rollout.config import RolloutConfig
from rl.rollout.http import JsonHttp
from rl.rollout.server import SGLangServer
from rl.weight_sync.sync import push_weights

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
        engine, old_pid, before = pool.engines[0], pool.servers[0].pid, pool.replacements
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
        assert pool.replacements == before + 1
        return noticed_s, generation, expected, await pool.checksums()

    noticed_s, generation, expected, actual = runner.run(scenario())
    assert noticed_s < 5
    assert len(generation.ids) == 300
    assert [s.version for s in generation.versions] == [5]
    assert actual == expected
    assert pool.version == pool.engines[0].version == 5


def test_tensors_in_shared_memory_reach_the_server_bit_for_bit_in_small_buckets(pool, runner, checkpoints):
    async def scenario():
        pool.bucket_bytes = 64 << 10
        pool.stream_transport = "tensor"
        tensors = [(name, t.clone()) for name, t in read_tensors(checkpoints[1])]
        report = await push_weights(pool, iter(tensors), 11)
        generation = await pool.generate(PROMPT, Sampling(8), seed=1, request_id="shared")
        return report, generation, await pool.engines[0].score(PROMPT, 1)

    try:
        report, generation, scores = runner.run(scenario())
    finally:
        pool.stream_transport, pool.bucket_bytes = "distributed", BUCKET_BYTES
    assert report.checked_tensors > 0, "checksums of every tensor were compared and equal"
    assert [s.version for s in generation.versions] == [11]
    runner.run(pool.update_weights(checkpoints[1], 12))
    assert scores == pytest.approx(runner.run(pool.engines[0].score(PROMPT, 1)), abs=1e-5)


def test_a_hung_server_mid_request_is_replaced_and_the_request_is_answered(pool, runner, checkpoints):
    """SIGSTOP: the process lives and says nothing. Its probes go unanswered until it is killed and replaced."""
    pool._config = pool._config.model_copy(update={"probe_interval_s": 1.0, "probe_timeout_s": 8.0})

    async def scenario() -> tuple[Generation, dict[str, str], dict[str, str]]:
        await pool.update_weights(read_tensors(checkpoints[1]), 6)
        expected = await pool.checksums()
        before, old_pid = pool.replacements, pool.servers[0].pid
        pool.engines[0]._probe_timeout_s = 8.0
        request = asyncio.create_task(pool.generate(PROMPT, Sampling(300), seed=3, request_id="hung"))
        await asyncio.sleep(0.4)
        os.killpg(old_pid, signal.SIGSTOP)
        generation = await request
        assert pool.replacements == before + 1 and pool.servers[0].pid != old_pid
        return generation, expected, await pool.checksums()

    generation, expected, actual = runner.run(scenario())
    assert len(generation.ids) == 300 and [s.version for s in generation.versions] == [6]
    assert actual == expected


def test_nothing_but_health_is_answered_without_the_key_and_the_key_is_written_nowhere(pool, runner):
    """The updates of the tests above went with it; what would change weights or read the configuration is refused."""
    server = pool.servers[0]
    gets = ("/server_info", "/model_info", "/v1/models", "/nowhere")
    changes = ("from_disk", "from_tensor", "from_distributed")
    posts = ("/generate", "/flush_cache", "/pause_generation", "/init_weights_update_group")
    paths = (*gets, *posts, *(f"/update_weights_{name}" for name in changes))

    async def status(path: str, key: str | None) -> int:
        http = JsonHttp(server.url, api_key=key)
        method, body = ("GET", None) if path in gets or path == "/health" else ("POST", {})
        reply = await http.request(path, body, 60, method=method)
        await http.close()
        assert server.api_key.encode() not in reply.content
        return reply.status

    for key in (None, new_key()):
        assert {path: runner.run(status(path, key)) for path in paths} == dict.fromkeys(paths, 401)
    assert runner.run(status("/health", None)) == runner.run(status("/server_info", server.api_key)) == 200
    assert runner.run(pool.engines[0].health()).serving

    assert server.log.stat().st_size and len(server.api_key) > 32
    for file in server.log.parent.parent.rglob("*"):
        assert not file.is_file() or server.api_key.encode() not in file.read_bytes(), file
    processes = [psutil.Process(server.pid), *psutil.Process(server.pid).children(recursive=True)]
    assert len(processes) > 2
    for process in processes:
        assert server.api_key not in " ".join(process.cmdline())
        assert Path(f"/proc/{process.pid}/environ").stat().st_mode & 0o077 == 0


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
