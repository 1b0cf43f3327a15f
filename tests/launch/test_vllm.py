"""The vLLM server of an evaluation: what is sent, what is accepted, and that no process is left behind.

No vLLM runs here (its wheels need a GPU): a small HTTP server stands in its place. What is tested is ours, the
supervision of the process and the reading of replies of the form that vLLM documents.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from common.errors import UsageError
from envs.engine import EngineError, Sampling
from launch.evaluation.config import VllmConfig
from launch.evaluation.vllm import open_vllm, read_generation, server_flags
from tests.loopback import JSON_SERVER

STAND_IN = """
import os, subprocess
MODE = {mode!r}
print("flags", sys.argv[1:], flush=True)
if MODE == "ends":
    sys.exit("CUDA out of memory")
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print("child", child.pid, flush=True)

class Handler(JsonHandler):
    def do_GET(self):
        self.reply(503 if MODE == "silent" else 200, {{}})

    def do_POST(self):
        asked = json.loads(self.asked())
        sent = self.headers["Authorization"]
        if sent != "Bearer " + os.environ["VLLM_API_KEY"]:
            return self.reply(401, {{}})
        ids = list(reversed(asked["prompt"]))
        choice = {{"token_ids": ids, "logprobs": {{"token_logprobs": [-0.5] * len(ids)}}, "finish_reason": "stop"}}
        if MODE == "broken":
            return self.reply(500, {{"error": "no room, " + sent}})
        self.reply(200, {{"choices": [choice], "asked": asked}})

serve(Handler)
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"max_position_embeddings": 4096}))
    return folder


def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    """Put the stand-in where `python -m vllm.entrypoints.openai.api_server` finds it."""
    package = tmp_path / "site" / "vllm" / "entrypoints" / "openai"
    package.mkdir(parents=True)
    for folder in (package, package.parent, package.parent.parent):
        (folder / "__init__.py").touch()
    (package / "api_server.py").write_text(JSON_SERVER + STAND_IN.format(mode=mode))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))


async def generated(model: Path, config: VllmConfig, logs: Path) -> Any:
    async with open_vllm(model, config, logs) as engine:
        return await engine.generate((5, 6, 7), Sampling(8, stop_ids=(2,)), seed=2**40 + 3, request_id="r")


def left_behind(logs: Path) -> list[int]:
    """Processes that the server said it started and that still run a moment later."""
    lines = (logs / "vllm.log").read_text().splitlines()
    children = [int(line.split()[1]) for line in lines if line.startswith("child ")]
    deadline = time.monotonic() + 30
    while (alive := [pid for pid in children if runs(pid)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    return alive


def runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_server_is_started_asked_by_token_ids_and_ended_with_its_children(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, monkeypatch, "answers")
    monkeypatch.setenv("RANK", "3")
    generation = asyncio.run(generated(model, VllmConfig(start_timeout_s=60), tmp_path / "logs"))
    assert generation.ids == (7, 6, 5) and generation.logprobs == (-0.5,) * 3 and generation.finish == "stop"
    assert [(s.version, s.start, s.end) for s in generation.versions] == [(0, 0, 3)]
    assert "--max-model-len', '4096'" in (tmp_path / "logs" / "vllm.log").read_text()
    assert not left_behind(tmp_path / "logs")


@pytest.mark.parametrize(
    ("mode", "timeout_s", "said"),
    [
        ("ends", 60.0, "CUDA out of memory"),
        ("silent", 1.5, "did not answer within 1.5 s"),
        ("broken", 60.0, r"no room, Bearer \[redacted\]"),
    ],
)
def test_a_server_that_fails_is_an_engine_error_that_says_why_and_leaves_nothing(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str, timeout_s: float, said: str
) -> None:
    install(tmp_path, monkeypatch, mode)
    with pytest.raises(EngineError, match=said):
        asyncio.run(generated(model, VllmConfig(start_timeout_s=timeout_s), tmp_path / "logs"))
    assert not left_behind(tmp_path / "logs")


def test_an_interpreter_without_vllm_is_refused_with_the_fix(model: Path, tmp_path: Path) -> None:
    if "vllm" in sys.modules:
        pytest.skip("this interpreter has vllm")
    with pytest.raises(UsageError, match=r"pip install 'osim\[vllm\]'"):
        asyncio.run(generated(model, VllmConfig(), tmp_path / "logs"))
    with pytest.raises(UsageError, match="cannot run it"):
        asyncio.run(generated(model, VllmConfig(python=tmp_path / "none"), tmp_path / "logs"))


def test_the_context_is_bounded_by_the_model_and_further_flags_come_last(model: Path) -> None:
    flags = server_flags(model, VllmConfig(max_context=100_000, tensor_parallel=2, extra_flags=("--seed", "1")), 99)
    assert flags[flags.index("--max-model-len") + 1] == "4096" and flags[-2:] == ["--seed", "1"]
    assert flags[flags.index("--tensor-parallel-size") + 1] == "2" and "127.0.0.1" in flags


CHOICE: dict[str, Any] = {"token_ids": [1, 2], "logprobs": {"token_logprobs": [-1.0, -2]}, "finish_reason": "length"}


def test_a_reply_without_ids_or_log_probs_is_no_generation() -> None:
    assert read_generation({"choices": [CHOICE]}).finish == "length"
    assert read_generation({"choices": [CHOICE | {"finish_reason": "error"}]}).finish == "abort"
    without = {k: v for k, v in CHOICE.items() if k != "token_ids"}
    for reply in ({}, {"choices": []}, {"choices": [without]}, {"choices": [CHOICE | {"logprobs": None}]}, None):
        with pytest.raises(EngineError, match="without token ids or log-probs"):
            read_generation(reply)
    with pytest.raises(EngineError, match="3 tokens and 2 log-probs"):
        read_generation({"choices": [CHOICE | {"token_ids": [1, 2, 3]}]})
