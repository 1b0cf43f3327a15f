"""`osim serve`: what it makes of its arguments, and where the key lies. The process stands in for SGLang."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from common.errors import UsageError
from launch import cli
from launch.serving import serve_until_stopped, write_secret
from rl.rollout.config import RolloutConfig
from tests.rl.rollout.conftest import write_checkpoint
from tests.rl.rollout.guarded import write_interpreter


def test_serve_refuses_a_folder_without_a_model_and_writes_no_log(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no Hugging Face model here") as caught:
        cli.run(["serve", str(tmp_path / "hf"), "--logs", str(tmp_path / "logs")])
    assert "config.json" in str(caught.value)
    assert not (tmp_path / "logs").exists()


@pytest.mark.parametrize("arguments", [("--port", "0"), ("--port", "70000"), ("--tensor-parallel", "0"), ()])
def test_serve_refuses_impossible_numbers_and_a_missing_model(arguments: tuple[str, ...], tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.run(["serve", *arguments, *([str(tmp_path)] if arguments else [])])
    assert ended.value.code == 2


def test_the_key_of_a_served_model_lies_in_a_file_for_its_owner_while_it_is_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, logs = write_checkpoint(tmp_path / "hf", seed=3), tmp_path / "logs"
    config = RolloutConfig(kind="sglang", device="cpu", python=write_interpreter(tmp_path))
    monkeypatch.setenv("MY_KEY", "chosen-by-hand")

    async def serve(config: RolloutConfig) -> tuple[str, list[tuple[int, str]]]:
        said: list[str] = []
        task = asyncio.create_task(serve_until_stopped(model, config, logs, said.append))
        while not said and not task.done():
            await asyncio.sleep(0.05)
        files = [(path.stat().st_mode & 0o777, path.read_text()) for path in logs.glob("api-key-*")]
        task.cancel()
        await task
        return said[0], files

    told, [(mode, key)] = asyncio.run(serve(config))
    assert mode == 0o600 and len(key) > 32 and key not in told and f"key: {logs}/api-key-" in told
    assert not list(logs.glob("api-key-*")), "gone with the server"
    told, files = asyncio.run(serve(config.model_copy(update={"api_key_variable": "MY_KEY"})))
    assert not files and "key: $MY_KEY" in told and "chosen" not in told


def test_a_secret_is_written_for_its_owner_alone_also_over_a_file_that_others_read(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("of before")
    path.chmod(0o644)
    write_secret(path, "new")
    assert path.read_text() == "new" and path.stat().st_mode & 0o777 == 0o600
