"""One SGLang server process: start, wait until it answers, stop. `pool` supervises several.

Runs on the rank that owns the rollout side. Each start has a key of its own, and counts only once a request without
it has been refused. The server is a session leader of its own: its group is ours to kill, and nothing else is. It
dies with this process (sglang_cpu/launch.py watches its parent). Its pid and log lie in `log_dir`. A port that is
taken is a UsageError before anything starts; a server that ends or stays silent past the deadline is an EngineError
with the last lines of its log. SGLang never removes its small file of load figures in shared memory: stopping removes
what the group had mapped (16 KB stay when we are killed).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

from common.errors import DataError, UsageError
from common.files import read_tail, write_json
from common.processes import kill_group, server_environment
from envs.engine import EngineError
from rl.rollout.api_key import KEY_VARIABLE, named_key, new_key
from rl.rollout.checkpoint import positive, read_config
from rl.rollout.config import RolloutConfig
from rl.rollout.sglang import UNAUTHORIZED

ROOT = Path(__file__).resolve().parents[2]
LAUNCHER = Path(__file__).resolve().parent / "sglang_cpu" / "launch.py"
STOP_GRACE_S = 15.0
POLL_S = 0.25
DTYPES = ("float32", "bfloat16", "float16")
HEALTH_TIMEOUT_S = 30.0
LOG_TAIL_BYTES = 4000
CONTEXT_SLACK = 8
"""SGLang keeps a few positions of its context for itself; the client still ends at max_context."""
LOAD_FILE = re.compile(r"/dev/shm/sglang_loads_\S+\.shm")


def default_python() -> Path:
    """The interpreter that `make sglang` builds."""
    return ROOT / ".venv-sglang" / "bin" / "python"


def is_built(python: Path) -> bool:
    """Whether SGLang's interpreter is there; one of `make sglang` counts only once that has finished (its marker)."""
    environment = python.parent.parent
    return python.exists() and (environment.name != ".venv-sglang" or (environment / ".ready").exists())


class SGLangServer:
    """A server of `model` on a port of its own. `index` names its log and pid file."""

    def __init__(self, model: Path, config: RolloutConfig, log_dir: Path, *, index: int = 0) -> None:
        self.model, self.config, self.index = model, config, index
        self.log = log_dir / f"sglang-{index}.log"
        self._pid_file = log_dir / f"sglang-{index}.pid.json"
        self._process: subprocess.Popen[bytes] | None = None
        self._load_files: set[Path] = set()
        self._log_start = 0
        self.port = 0
        self.api_key = ""
        """What the present start demands of its callers."""

    @property
    def url(self) -> str:
        return f"http://{self.config.host}:{self.port}"

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self, *, version: int = 0) -> None:
        """Start the process. Raises UsageError for a taken port, a missing environment, model or key."""
        python = self.config.python or default_python()
        if not is_built(python):
            raise UsageError("the SGLang environment is not built", where=str(python), fix="run: make sglang")
        flags = self._flags(version)
        self.api_key = named_key(self.config.api_key_variable, os.environ) or new_key()
        self.port = _port(self.config.host, self.config.port, self.index)
        flags += ["--port", str(self.port)]
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self._log_start = self.log.stat().st_size if self.log.exists() else 0
        command = [str(python), str(LAUNCHER), str(os.getpid()), *flags]
        with self.log.open("ab") as out:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=self._environment(),
                start_new_session=True,
            )
        write_json(self._pid_file, {"pid": self._process.pid, "url": self.url, "started": time.time()})

    async def wait_ready(self) -> None:
        """Until the server has generated a token. Raises EngineError when it ends first or the deadline passes."""
        deadline = time.monotonic() + self.config.start_timeout_s
        async with httpx.AsyncClient(base_url=self.url, timeout=HEALTH_TIMEOUT_S, trust_env=False) as client:
            while time.monotonic() < deadline:
                if not self.alive:
                    raise EngineError(
                        f"the SGLang server ended while starting; {self.log} ends with\n{self.log_tail()}"
                    )
                with contextlib.suppress(httpx.HTTPError):
                    if (await client.get("/health")).status_code == 200:
                        await _check_it_refuses_strangers(client)
                        return
                await asyncio.sleep(POLL_S)
        raise EngineError(
            f"the SGLang server did not answer within {self.config.start_timeout_s:g} s; its log:\n{self.log_tail()}"
        )

    async def stop(self) -> None:
        """SIGTERM, and SIGKILL to its group for what has not ended within the grace. Idempotent."""
        if self._process is not None and self.alive:
            self._load_files |= _load_files(self._process.pid)
            self._process.terminate()
            deadline = time.monotonic() + STOP_GRACE_S
            while self.alive and time.monotonic() < deadline:
                await asyncio.sleep(POLL_S)
        self.kill()

    def kill(self) -> None:
        """SIGKILL to the server's own group. Idempotent."""
        if self._process is not None:
            self._load_files |= _load_files(self._process.pid)
            kill_group(self._process)
            self._process = None
        while self._load_files:
            self._load_files.pop().unlink(missing_ok=True)
        self._pid_file.unlink(missing_ok=True)

    def log_tail(self) -> str:
        """The last lines that this start of the server has logged."""
        return read_tail(self.log, LOG_TAIL_BYTES, start=self._log_start)

    def _flags(self, version: int) -> list[str]:
        config, model = self.config, read_config(self.model)
        trained = positive(model, "max_position_embeddings", self.model)
        flags = {
            "--model-path": str(self.model.resolve()),
            "--host": config.host,
            # SGLang's own "auto" would serve a float32 checkpoint in half precision.
            "--dtype": _dtype(model, self.model) if config.dtype == "auto" else config.dtype,
            "--tp-size": str(config.tensor_parallel),
            "--context-length": str(min(config.max_context, trained) + CONTEXT_SLACK),
            "--max-running-requests": str(config.max_running_requests),
            "--max-total-tokens": str(config.max_total_tokens),
            "--weight-version": str(version),
        }
        switches = ["--skip-server-warmup"]
        if self._on_cpu:
            # torch_native is the one attention that runs without kernels; an idle scheduler would spin a core.
            flags |= {"--device": "cpu", "--attention-backend": "torch_native", "--mem-fraction-static": "0.3"}
            switches += ["--disable-overlap-schedule", "--disable-cuda-graph", "--sleep-on-idle"]
        else:
            flags |= {
                "--mem-fraction-static": str(config.mem_fraction),
                "--base-gpu-id": str(self.index * config.tensor_parallel),
            }
        if config.deterministic:
            switches.append("--enable-deterministic-inference")
        return [part for pair in flags.items() for part in pair] + switches + list(config.extra_flags)

    def _environment(self) -> dict[str, str]:
        """With what SGLang reads from nowhere else."""
        environment = server_environment() | {
            "SGLANG_CUDA_COREDUMP_BEFORE_CRASH_WAIT_SECS": "0",
            "SGLANG_ALLOW_OVERWRITE_LONGER_CONTEXT_LEN": "1",
            KEY_VARIABLE: self.api_key,
        }
        if self._on_cpu:
            environment |= {"SGLANG_USE_CPU_ENGINE": "1", "OMP_NUM_THREADS": "1"}
        return environment

    @property
    def _on_cpu(self) -> bool:
        if self.config.device != "auto":
            return self.config.device == "cpu"
        import torch

        return not torch.cuda.is_available()


async def _check_it_refuses_strangers(client: httpx.AsyncClient) -> None:
    """Raises EngineError when a request without the key is answered."""
    status = (await client.get("/model_info")).status_code
    if status != UNAUTHORIZED:
        raise EngineError(f"the SGLang server answers without its key (status {status}): not used")


def _dtype(config: Mapping[str, Any], model: Path) -> str:
    """The checkpoint's own. Raises DataError."""
    found = config.get("dtype") or config.get("torch_dtype")
    if found not in DTYPES:
        raise DataError(
            f"dtype is {found!r:.40}, not one of {', '.join(DTYPES)}",
            where=str(model / "config.json"),
            fix="set rollout.dtype",
        )
    return str(found)


def _load_files(group: int) -> set[Path]:
    """SGLang's load figures in shared memory that a process of this group has mapped."""
    found: set[Path] = set()
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended, or is not ours
            if os.getpgid(int(process.name)) == group:
                found.update(Path(name) for name in LOAD_FILE.findall((process / "maps").read_text()))
    return found


def _port(host: str, first: int | None, index: int) -> int:
    """The configured port if it is free, else a free one when none is configured."""
    port = 0 if first is None else first + index
    with socket.socket() as probe:
        # A port in TIME_WAIT after a replaced server is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as e:
            raise UsageError(
                f"port {port} is taken ({e.strerror})", where=host, fix="free it, or configure another port"
            ) from None
        return int(probe.getsockname()[1])
