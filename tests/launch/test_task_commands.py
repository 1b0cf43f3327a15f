"""`osim task` through the command line."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from common.errors import DataError, UsageError
from envs import registry
from envs.ledger import LedgerReader
from envs.tasks.negotiate.scenes import read_scene
from envs.types import Score
from launch import cli
from tests.envs.client.server import Server, in_background


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


def test_a_person_takes_one_seat_a_model_the_other_and_the_ledger_keeps_the_talk(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    scene = read_scene(next(iter(registry.get("negotiate").rows("test", 1, 0))))
    monkeypatch.setattr("sys.stdin", io.StringIO(f"What about <offer>{scene.options[0]}</offer>?\n"))
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with in_background(Server(answer=lambda body: "Fine. <accept/>")) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        with pytest.raises(SystemExit) as ended:
            cli.run(["play", "negotiate", "--seat", "opener", "--partner", "m", "--out", str(tmp_path)])
    assert not ended.value.code
    with LedgerReader(tmp_path) as ledger:
        (recorded,) = ledger.episodes(phase="play")
    assert [say.seat for say in recorded.episode.says] == ["opener", "responder"]
    assert all(isinstance(o, Score) for o in recorded.episode.outcomes.values())
    assert [m["content"] for m in server.requests[0]["messages"][1:]] == [
        f"What about <offer>{scene.options[0]}</offer>?"
    ]


def test_a_seat_without_a_player_is_refused_before_anything_is_asked() -> None:
    with pytest.raises(UsageError, match="nobody plays responder"):
        cli.run(["play", "negotiate", "--seat", "opener"])
    with pytest.raises(UsageError, match="no seat king"):
        cli.run(["play", "negotiate", "--seat", "king"])


def test_golden_exits_1_and_lists_the_rows_that_differ(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = '{"kind": "mc", "response": "(%s)", "correct_answer": 0, "author": true}\n'
    (tmp_path / "same.jsonl").write_text(row % "a")
    (tmp_path / "other.jsonl").write_text(row % "a" + row % "b")
    assert run("golden", str(tmp_path / "same.jsonl")) == 0
    assert run("golden", str(tmp_path / "same.jsonl"), str(tmp_path / "other.jsonl")) == 1
    assert "1 of 2 equal" in (shown := capsys.readouterr().out) and "line=2" in shown


def test_a_person_who_leaves_is_unscored_not_wrong(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert run("play", "hitom_mini") == 0
    assert "Unscored" in capsys.readouterr().out


def test_a_persons_own_data_is_checked_and_played(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    record = {"prompt_text": "Who lies?\nA. Al\nB. Bo", "answer_letter": "B"}
    (tmp_path / "rows.jsonl").write_text(json.dumps(record))
    assert run("check", "social_r1", "--data", str(tmp_path)) == 0
    monkeypatch.setattr("sys.stdin", io.StringIO("<answer>Bo</answer>\n"))
    assert run("play", "social_r1", "--data", str(tmp_path)) == 0
    assert "Score(value=1.0" in capsys.readouterr().out
    with pytest.raises(UsageError, match="no row 1"):
        cli.run(["task", "play", "social_r1", "--row", "1", "--data", str(tmp_path)])
    (tmp_path / "rows.jsonl").write_text(json.dumps({**record, "answer_letter": "C"}))
    with pytest.raises(DataError, match="none of the choices"):
        cli.run(["task", "check", "social_r1", "--data", str(tmp_path)])


def test_a_task_without_data_here_is_played_on_its_examples(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("<answer>B</answer>\n"))
    assert run("play", "lifechoices") == 0
    assert "Score(value=1.0" in capsys.readouterr().out
