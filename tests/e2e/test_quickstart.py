"""The whole pipeline, shortened: interrupted, resumed, finished, and run once more."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from common.files import hash_file, read_json
from eval.results import Results

STAGES = ["corpus", "tokenizer", "shards", "midtrain", "export", "eval-before", "eval-midtrained", "engine"]
STAGES += [f"{kind}-{name}" for name in ("grpo", "verbal_feedback", "opd") for kind in ("rl", "eval")] + ["report"]
SHORT = [
    "engine=embedded",
    "corpus={stories: 150, dialogues: 30, heldout_stories: 10, heldout_dialogues: 5}",
    "midtrain.steps=16",
    "midtrain.optimizer.warmup_steps=4",
    "midtrain.checkpoint.every_steps=4",
    *(f"rl.{name}.{key}" for name in ("grpo", "verbal_feedback", "opd") for key in ("steps=1", "groups_per_step=2")),
    "eval.limit=20",
]
RUN_TIMEOUT_S = 900


def start(folder: Path) -> subprocess.Popen[str]:
    code = "from launch.cli import main; main()"
    command = [sys.executable, "-c", code, "quickstart", "--fast", "--out", str(folder), *SHORT]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def wait_for(condition: object, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + RUN_TIMEOUT_S
    while not condition():  # type: ignore[operator]
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.1)


def processes_of(folder: Path) -> list[psutil.Process]:
    return [p for p in psutil.process_iter(["cmdline"]) if any(str(folder) in a for a in p.info["cmdline"] or [])]


def contents(folder: Path) -> dict[str, str]:
    files = [p for p in sorted(folder.rglob("*")) if p.is_file() and p.name != ".lock"]
    return {str(p.relative_to(folder)): hash_file(p) for p in files}


@pytest.mark.slow
@pytest.mark.timeout(4 * RUN_TIMEOUT_S)
def test_quickstart_survives_ctrl_c_resumes_to_the_end_and_then_repeats_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    metrics = folder / "midtrain" / "metrics.jsonl"

    first = start(folder)
    wait_for(lambda: metrics.exists() and metrics.read_text().count('"midtrain"') >= 2, first)
    first.send_signal(signal.SIGINT)
    shown = first.communicate(timeout=RUN_TIMEOUT_S)[0]
    assert first.returncode == 4, shown
    assert "resume with: osim quickstart" in shown and str(folder) in shown
    assert not processes_of(folder)
    assert not (folder / "midtrain" / "stage.json").exists()
    assert list((folder / "midtrain" / "checkpoints").glob("step-*"))

    second = start(folder)
    shown = second.communicate(timeout=RUN_TIMEOUT_S)[0]
    assert second.returncode == 0, shown
    assert shown.count("done before, not repeated") == 3  # corpus, tokenizer, shards
    assert [name for name in STAGES if not (folder / name / "stage.json").exists()] == []
    assert (folder / "report.html").stat().st_size > 10_000
    assert not processes_of(folder)
    export = read_json(folder / "export" / "stage.json")["summary"]
    assert float(export["max log-prob difference to transformers"]) < 1e-4
    for name in ("before", "midtrained", "grpo", "verbal_feedback", "opd"):
        results = Results.load(folder / f"eval-{name}")
        assert results.tasks[0].scored == 20
        assert results.tasks[0].baseline is not None

    before = contents(folder)
    third = start(folder)
    shown = third.communicate(timeout=RUN_TIMEOUT_S)[0]
    assert third.returncode == 0, shown
    assert shown.count("done before, not repeated") == len(STAGES)
    assert contents(folder) == before
