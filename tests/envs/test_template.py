"""The template of docs/add-a-task.md: copied, it is a task like any other."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from common.errors import UsageError
from envs import registry
from envs.check import check
from envs.play import play
from envs.players.scripted import ScriptedPlayer
from envs.types import Score
from launch import cli

TEMPLATE = Path(__file__).resolve().parents[2] / "docs" / "task_template.py"


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    path = tmp_path / "my_task.py"
    path.write_text(TEMPLATE.read_text())
    return path


def test_a_copy_of_the_template_registers_conforms_and_plays(copied: Path) -> None:
    spec = registry.get(str(copied))
    assert spec.name == "shy_guest" and check(spec) == []
    assert {r.cluster for r in spec.rows("train", None, 0)}.isdisjoint(r.cluster for r in spec.rows("test", None, 0))
    row = next(iter(spec.rows("train", 1, 0)))
    episode = asyncio.run(play(spec.env("strict"), row, {"guest": ScriptedPlayer(["I like it."])}, seed=0))
    assert episode.outcomes == {"guest": Score(1.0, {"shy": 1.0, "personal": 1.0})}


def test_equal_files_are_one_module_and_a_changed_file_is_loaded_anew(copied: Path) -> None:
    one, two = registry.get(str(copied)), registry.get(f"{copied}:spec")
    assert one.env is two.env
    copied.write_text(copied.read_text().replace("version=1", "version=2"))
    assert registry.get(str(copied)).version == 2


def test_the_command_names_what_is_wrong_with_a_broken_copy(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def run() -> int:
        with pytest.raises(SystemExit) as ended:
            cli.run(["task", "check", str(copied)])
        return int(ended.value.code or 0)

    assert run() == 0
    text = copied.read_text()
    copied.write_text(text.replace("Score((shy + personal) / 2, parts)", "Score(float(len(words)), parts)"))
    assert run() == 3 and "✗ bounds" in capsys.readouterr().out
    copied.write_text(text.replace("data={", "data={'drawn': __import__('random').random(), "))
    assert run() == 3 and "✗ rows" in capsys.readouterr().out


def test_a_file_that_is_no_task_is_refused_with_its_path(tmp_path: Path) -> None:
    (tmp_path / "empty.py").write_text("")
    with pytest.raises(UsageError, match="no function 'spec'"):
        registry.get(str(tmp_path / "empty.py"))
    (tmp_path / "other.py").write_text("def spec(): return 1")
    with pytest.raises(UsageError, match="no TaskSpec"):
        registry.get(str(tmp_path / "other.py"))
    with pytest.raises(UsageError, match="no such file"):
        registry.get(str(tmp_path / "none.py"))
