"""`osim task` through the command line."""

from __future__ import annotations

import io

import pytest

from common.errors import UsageError
from envs import registry
from launch import cli


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.run(["task", *arguments])
    return int(ended.value.code or 0)


def test_list_names_every_task_with_its_direction(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("list") == 0
    shown = capsys.readouterr().out
    for name in registry.names():
        assert f"{name}  v" in shown
    assert "↑" in shown


def test_check_passes_conforming_tasks_and_unknown_ones_name_near_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("check", "hitom_mini") == 0
    assert "conforms" in capsys.readouterr().out
    with pytest.raises(UsageError, match="did you mean"):
        cli.run(["task", "check", "hitom_mimi"])


def test_a_person_can_take_the_seat_and_is_scored(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    row = next(iter(registry.get("hitom_mini").rows("test", 1, 0)))
    monkeypatch.setattr("sys.stdin", io.StringIO(f"<answer>{row.data['answer']}</answer>\n"))
    assert run("play", "hitom_mini") == 0
    assert "Score(value=1.0" in capsys.readouterr().out


def test_a_person_who_leaves_is_unscored_not_wrong(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert run("play", "hitom_mini") == 0
    assert "Unscored" in capsys.readouterr().out
