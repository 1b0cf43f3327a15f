"""One vLLM server for an evaluation: started, asked by token ids, stopped. Evaluation only: no weight updates.

Runs in the process of the command. The server is a session leader of its own whose group is ended with the body; its
log lies in RUN/logs/vllm.log; under /v1 it answers nobody without the key of this start. Prompts and answers travel
as token ids (`prompt` as ids, `return_token_ids`), so that vLLM's chat template is never used. A server that ends or
stays silent, and an answer without ids, is an EngineError.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from common.errors import SHAPE_ERRORS, UsageError, data_errors
from common.files import read_json_object, read_tail
from common.processes import kill_group, server_environment
from envs.engine import EngineError, FinishReason, Generation, Sampling, VersionSpan
from launch.evaluation.config import VllmConfig
from rl.rollout.api_key import new_key
from rl.rollout.http import HttpFailed, JsonHttp

HOST = "127.0.0.1"
NAME = "osim"
KEY_VARIABLE = "VLLM_API_KEY"
"""vLLM's own: the key that it demands under /v1."""
STOP_GRACE_S = 20.0
POLL_S = 0.5
PROBE_TIMEOUT_S = 10.0
LOG_TAIL_BYTES = 4000
SEED_LIMIT = 2**31


class VllmEngine:
    """The `Engine` of one server at `url`. Safe for concurrent calls from one event loop."""

    reproducible = False

    def __init__(self, url: str, *, generate_timeout_s: float, model: str = NAME, api_key: str | None = None) -> None:
        self.name = f"vllm {url}"
        self._model = model
        self._http, self._timeout_s = JsonHttp(url, api_key=api_key), generate_timeout_s

    async def generate(
        self, prompt_ids: tuple[int, ...], sampling: Sampling, *, seed: int, request_id: str
    ) -> Generation:
        """Sample one completion."""
        reply = await self._post({**_body(prompt_ids, sampling, seed), "model": self._model})
        return read_generation(reply)

    async def score(self, ids: tuple[int, ...], start: int) -> tuple[float, ...]:
        """An evaluation asks for no prompt log-probs."""
        raise EngineError("the vLLM engine of evaluations scores no prompts")

    async def close(self) -> None:
        await self._http.close()

    async def answers(self) -> bool:
        """Whether the server is up."""
        try:
            return (await self._http.request("/health", None, PROBE_TIMEOUT_S, method="GET")).status == 200
        except HttpFailed:
            return False

    async def _post(self, body: Mapping[str, Any]) -> Any:
        try:
            reply = await self._http.request("/v1/completions", body, self._timeout_s, method="POST")
        except HttpFailed as e:
            raise EngineError(f"{self.name}: {e}") from e
        if reply.status != 200:
            raise EngineError(f"{self.name}: HTTP {reply.status}: {reply.text[:500]}")
        try:
            return reply.json()
        except ValueError as e:
            raise EngineError(f"{self.name}: no JSON came back: {reply.text[:200]}") from e


def _body(prompt_ids: tuple[int, ...], sampling: Sampling, seed: int) -> dict[str, Any]:
    return {
        "prompt": list(prompt_ids),
        "max_tokens": sampling.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "seed": seed % SEED_LIMIT,
        "stop_token_ids": list(sampling.stop_ids),
        "logprobs": 0,
        "return_token_ids": True,
        "skip_special_tokens": False,
    }


def read_generation(reply: Any) -> Generation:
    """A completion of vLLM's API. Raises EngineError unless it has ids and as many log-probs."""
    try:
        choice = reply["choices"][0]
        ids = tuple(int(i) for i in choice["token_ids"])
        logprobs = tuple(float(p) for p in choice["logprobs"]["token_logprobs"])
        finish: FinishReason = {"stop": "stop", "length": "length"}.get(choice["finish_reason"], "abort")  # type: ignore[assignment]
    except SHAPE_ERRORS as e:
        raise EngineError(f"vLLM answered without token ids or log-probs ({e!r}); vllm >= 0.10.2 has them") from e
    if not all(map(math.isfinite, logprobs)) or any(i < 0 for i in ids):
        raise EngineError("vLLM answered with token ids or log-probs that are none")
    if len(ids) != len(logprobs):
        raise EngineError(f"vLLM gave {len(ids)} tokens and {len(logprobs)} log-probs")
    return Generation(ids, logprobs, finish, (VersionSpan(0, 0, len(ids)),) if ids else ())


@asynccontextmanager
async def open_vllm(model: Path, config: VllmConfig, logs: Path) -> AsyncIterator[VllmEngine]:
    """A running server of the Hugging Face folder `model`. Raises UsageError (no vllm) or EngineError (no start)."""
    python = config.python or Path(sys.executable)
    port, key = _free_port(), new_key()
    logs.mkdir(parents=True, exist_ok=True)
    log = logs / "vllm.log"
    await asyncio.to_thread(_check_installed, python)
    with log.open("ab") as out:
        process = subprocess.Popen(
            [str(python), "-m", "vllm.entrypoints.openai.api_server", *server_flags(model, config, port)],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            env=server_environment() | {KEY_VARIABLE: key},
            start_new_session=True,
        )
    engine = VllmEngine(f"http://{HOST}:{port}", generate_timeout_s=config.generate_timeout_s, api_key=key)
    try:
        await _wait_ready(engine, process, log, config.start_timeout_s)
        yield engine
    finally:
        await engine.close()
        await asyncio.to_thread(_stop, process)


def server_flags(model: Path, config: VllmConfig, port: int) -> list[str]:
    """The server's command line after the module."""
    with data_errors(str(model / "config.json"), fix="export the model again"):
        trained = int(read_json_object(model / "config.json")["max_position_embeddings"])
    context = min(config.max_context, trained)
    return [
        *("--model", str(model.resolve()), "--served-model-name", NAME, "--host", HOST, "--port", str(port)),
        *("--max-model-len", str(context), "--max-num-seqs", str(config.max_running_requests)),
        *("--tensor-parallel-size", str(config.tensor_parallel)),
        *("--gpu-memory-utilization", str(config.gpu_memory)),
        # Sampling is what we ask for, not what the checkpoint's generation_config.json suggests.
        *("--generation-config", "vllm", "--logprobs-mode", "processed_logprobs"),
        *config.extra_flags,
    ]


async def _wait_ready(engine: VllmEngine, process: subprocess.Popen[bytes], log: Path, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise EngineError(f"the vLLM server ended while starting; {log} ends with\n{_tail(log)}")
        if await engine.answers():
            return
        await asyncio.sleep(POLL_S)
    raise EngineError(f"the vLLM server did not answer within {timeout_s:g} s; {log} ends with\n{_tail(log)}")


def _check_installed(python: Path) -> None:
    try:
        found = subprocess.run(
            [str(python), "-c", "import importlib.util, sys; sys.exit(importlib.util.find_spec('vllm') is None)"],
            check=False,
            capture_output=True,
            timeout=60,
        )
    except OSError as e:
        raise UsageError(f"cannot run it: {e.strerror}", where=str(python), fix="correct model.vllm.python") from e
    if found.returncode:
        raise UsageError(
            "vllm is not installed for this interpreter",
            where=str(python),
            fix="pip install 'osim[vllm]' in an environment of its own and give its interpreter as model.vllm.python",
        )


def _stop(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM, then SIGKILL to its own group."""
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_GRACE_S)
    kill_group(process)


def _tail(log: Path) -> str:
    return read_tail(log, LOG_TAIL_BYTES)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
