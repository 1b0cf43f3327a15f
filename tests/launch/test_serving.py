"""`osim serve`: what it makes of its arguments, before any server starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.errors import UsageError
from launch import cli


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
