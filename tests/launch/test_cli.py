"""The command line as a user meets it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import typer

from common.errors import DataError, Interrupted, run_main
from launch import cli

VERBS = [
    "quickstart",
    "midtrain",
    "serve",
    "rl",
    "bench",
    "view",
    "plan",
    "launch",
    "doctor",
    "why",
    "data",
    "convert",
    "eval",
    "task",
    "play",
    "config",
]
HEAVY = ("torch", "numpy", "openai", "transformers", "megatron", "pyarrow", "httpx", "aiohttp", "scipy", "pandas")


def leaves(app: typer.Typer) -> list[list[str]]:
    """Every command line that ends in a command."""
    group = typer.main.get_command(app)
    found: list[list[str]] = []
    stack = [([], group)]
    while stack:
        path, command = stack.pop()
        children = getattr(command, "commands", None)
        if children is None:
            found.append(path)
        else:
            stack.extend(([*path, name], child) for name, child in children.items())
    return sorted(found)


LEAVES = leaves(cli.app)


def test_every_verb_of_the_design_is_present() -> None:
    assert {path[0] for path in LEAVES} == set(VERBS)


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_help_of_every_verb_shows_a_runnable_example(path: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.run([*path, "--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert "Example:\n" in shown
    assert f"  osim {' '.join(path)}" in shown.partition("Example:\n")[2]


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom launch import cli\n"
        "try: cli.run(['--help'])\nexcept SystemExit: pass\n"
        f"print('loaded:', [m for m in {HEAVY!r} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[-1] == "loaded: []"


def test_unknown_verbs_and_options_are_usage_errors(capsys: pytest.CaptureFixture[str]) -> None:
    for line in (["fly"], ["doctor", "--fly"]):
        with pytest.raises(SystemExit) as ended:
            cli.run(line)
        assert ended.value.code == 2
        assert "fly" in capsys.readouterr().err


def test_an_error_is_printed_in_one_piece_without_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise DataError("block 3 is corrupt", where="x.bin", fix="prepare it again")

    with pytest.raises(SystemExit) as ended:
        run_main(fail)
    assert ended.value.code == 2
    assert capsys.readouterr().err == "error: x.bin: block 3 is corrupt\n  fix: prepare it again\n"


def test_ctrl_c_inside_a_verb_is_interrupted_and_resumable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def press(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("launch.doctor.examine", press)
    with pytest.raises(Interrupted) as caught:
        cli.run(["doctor", "--out", str(tmp_path)])
    assert caught.value.exit_code == 4
