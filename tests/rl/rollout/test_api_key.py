"""Servers demand a key that only their environment and our requests hold. The process stands in for SGLang."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import psutil
import pytest

from common.config import validate
from common.errors import ConfigError, UsageError
from envs.engine import EngineError, Sampling
from rl.algorithms.opd import OPDConfig
from rl.rollout.api_key import KEY_VARIABLE, named_key, new_key
from rl.rollout.config import RolloutConfig
from rl.rollout.http import JsonHttp
from rl.rollout.pool import EnginePool
from rl.rollout.server import SGLangServer
from tests.rl.rollout.guarded import write_interpreter

PROMPT = (5, 6, 7)


def config(folder: Path, *, answers_everybody: bool = False) -> RolloutConfig:
    python = write_interpreter(folder, answers_everybody=answers_everybody)
    return RolloutConfig(kind="sglang", device="cpu", python=python)


def test_a_server_gets_a_fresh_key_that_its_clients_send_and_nothing_else_holds(checkpoints, tmp_path: Path) -> None:
    run = tmp_path / "run"

    async def main() -> tuple[str, str, str, list[int]]:
        pool = await EnginePool.start(checkpoints[0], config(tmp_path), run)
        try:
            server = pool.servers[0]
            command = " ".join(psutil.Process(server.pid).cmdline())
            with pytest.raises(EngineError) as failed:
                await pool.engines[0].generate(PROMPT, Sampling(4), seed=1, request_id="r")
            statuses = []
            for key in (None, "", new_key(), server.api_key):
                http = JsonHttp(server.url, api_key=key)
                statuses.append((await http.request("/model_info", None, 20, method="GET")).status)
                await http.close()
            return server.api_key, command, str(failed.value), statuses
        finally:
            await pool.close()

    key, command, error, statuses = asyncio.run(main())
    assert statuses == [401, 401, 401, 200]
    assert "no memory for Bearer [redacted]" in error and key not in error
    assert "--port" in command and key not in command and len(key) > 32
    files = [file for file in run.rglob("*") if file.is_file()]
    assert "arguments" in (run / "logs" / "sglang-0.log").read_text()
    assert not [file for file in files if key.encode() in file.read_bytes()]


def test_each_start_draws_another_key_unless_a_variable_is_named(
    checkpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, keys = SGLangServer(checkpoints[0], config(tmp_path), tmp_path / "logs"), []
    monkeypatch.setenv("MY_KEY", "chosen-by-hand")
    for name in (None, None, "MY_KEY"):
        server.config = server.config.model_copy(update={"api_key_variable": name})
        server.start()
        keys.append(server.api_key)
        server.kill()
    assert len(set(keys)) == 3 and keys[2] == "chosen-by-hand"
    monkeypatch.delenv("MY_KEY")
    with pytest.raises(UsageError, match=r"MY_KEY is not set[\s\S]*export MY_KEY"):
        server.start()


def test_a_server_that_answers_without_its_key_is_not_used(checkpoints, tmp_path: Path) -> None:
    open_to_all = config(tmp_path, answers_everybody=True)
    with pytest.raises(EngineError, match=r"answers without its key \(status 200\)"):
        asyncio.run(EnginePool.start(checkpoints[0], open_to_all, tmp_path / "run"))
    assert not [p for p in psutil.Process().children() if str(open_to_all.python) in " ".join(p.cmdline())]


def test_servers_by_url_get_the_key_of_the_named_variable(
    checkpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> str:
        server = SGLangServer(checkpoints[0], config(tmp_path), tmp_path / "logs")
        server.start()
        try:
            await server.wait_ready()
            monkeypatch.setenv("THEIR_KEY", server.api_key)
            named = RolloutConfig(urls=(server.url,), api_key_variable="THEIR_KEY")
            await (await EnginePool.attach(checkpoints[0], named, tmp_path)).close()
            monkeypatch.setenv("THEIR_KEY", "some-other-key")
            with pytest.raises(EngineError, match=r"status 401.*name the variable.*api_key_variable") as refused:
                await EnginePool.attach(checkpoints[0], named, tmp_path)
            with pytest.raises(EngineError, match="status 401"):
                await EnginePool.attach(checkpoints[0], RolloutConfig(urls=(server.url,)), tmp_path)
            return str(refused.value)
        finally:
            server.kill()

    assert "some-other-key" not in asyncio.run(main())


@pytest.mark.parametrize("key", ["two words", "line\nend", "a\r\nHost: evil", "schlüssel", "\x7f", "tab\t"])
def test_a_key_that_fits_no_header_is_refused_without_being_shown(key: str) -> None:
    assert named_key(None, {}) is None
    with pytest.raises(UsageError, match="NAME holds no key") as refused:
        named_key("NAME", {"NAME": key})
    assert key not in str(refused.value)


@pytest.mark.parametrize("flags", [["--api-key", "abc"], ["--api-key=abc"], ["--admin-api=abc"], ["--api"]])
def test_a_key_among_the_flags_is_refused_with_the_way_to_give_one(flags: list[str]) -> None:
    with pytest.raises(ConfigError, match="api_key_variable") as refused:
        validate(RolloutConfig, {"extra_flags": flags}, where="rollout")
    assert "abc" not in str(refused.value)
    assert validate(RolloutConfig, {"extra_flags": ["--log-level", "debug"]}, where="rollout").extra_flags


def test_an_address_of_a_server_with_a_credential_is_no_recipe() -> None:
    url = f"http://somebody:{'password77' * 9}@node7:30000"  # longer than what is shown of a value
    for config_class, value in (
        (RolloutConfig, {"urls": ["http://node6:30000", url]}),
        (OPDConfig, {"teacher": "external", "external_model": "hf", "external_urls": [url]}),
    ):
        with pytest.raises(ConfigError, match="holds a credential") as refused:
            validate(config_class, value, where="recipe")
        assert "password77" not in str(refused.value)


def test_the_key_reaches_the_server_in_an_environment_that_no_other_user_reads(checkpoints, tmp_path: Path) -> None:
    server = SGLangServer(checkpoints[0], config(tmp_path), tmp_path / "logs")
    server.start()
    try:
        asyncio.run(server.wait_ready())
        environment = Path(f"/proc/{server.pid}/environ")
        if not environment.exists():
            pytest.skip("no /proc on this machine")
        assert f"{KEY_VARIABLE}={server.api_key}".encode() in environment.read_bytes()
        assert environment.stat().st_mode & 0o077 == 0 and environment.stat().st_uid == os.getuid()
    finally:
        server.kill()
