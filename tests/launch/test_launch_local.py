"""`osim launch` without Slurm: the same jobs in this process, one after the other."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from common.errors import UsageError
from common.files import read_json
from common.run_folder import RunFolder
from launch.submit import local
from launch.submit.config import PreflightConfig
from tests.megatron_osim.corpus import Corpus, make_corpus

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return make_corpus(tmp_path_factory.mktemp("corpus"), sequence_length=128, rows=40)


def launch(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "launch", "launch", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False)


def test_chain_runs_here_stops_at_the_first_failure_and_says_what_became_of_it(
    corpus: Corpus, tmp_path: Path
) -> None:
    data = {
        "inputs": [{"glob": str(corpus.train.parent.parent / "*.jsonl")}],
        "tokenizer": str(corpus.tokenizer),
        "output": "unset",
        "backend": "hf",
        "sources": {"train": {"swap": False}, "other": {"swap": False}},
    }
    files = {
        "data.yaml": data,
        "cluster.yaml": {"nodes": 1, "gpus_per_node": 1},
        "chain.yaml": {
            "stages": [
                {"name": "good", "kind": "data", "recipe": "data.yaml", "shards": 2, "set": ["output={root}/all"]},
                {"name": "bad", "kind": "data", "recipe": "data.yaml", "set": ["tokenizer=/nowhere"]},
                {"name": "never", "kind": "convert", "source": "good"},
            ]
        },
    }
    for name, content in files.items():
        (tmp_path / name).write_text(yaml.safe_dump(content))
    root = tmp_path / "root"
    done = launch("chain", tmp_path / "chain.yaml", "--cluster", tmp_path / "cluster.yaml", "--out", root)
    assert done.returncode == 2 and "/nowhere" in done.stderr, done.stdout + done.stderr
    assert (root / "all.bin").is_file() and not (root / "never" / "hf").exists()
    assert {job["backend"] for job in read_json(root / "launch" / "record.json")["jobs"]} == {"local"}
    told = launch("status", root).stdout
    assert "good (data" in told and "COMPLETED; ended 0" in told and "FAILED, exit code 2; ended 2" in told
    assert "never (convert" in told and "CANCELLED" in told


def test_stop_request_ends_the_child_and_keeps_the_next_from_starting(tmp_path: Path) -> None:
    mark = tmp_path / "started"
    code = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(4))\n"
        f"open({str(mark)!r}, 'w').close()\n"
        "time.sleep(60)"
    )
    program = (
        "import sys; from launch.submit.local import _Children\n"
        "with _Children() as children:\n"
        f"    print(children.run([sys.executable, '-c', {code!r}]), children.run(['false']), flush=True)"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not mark.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    parent.send_signal(signal.SIGTERM)
    assert parent.communicate(timeout=60)[0] == "4 4\n"


def test_stop_request_between_two_children_is_not_lost() -> None:
    with local._Children() as children:
        assert children.run(["true"]) == 0
        signal.raise_signal(signal.SIGTERM)
        assert children.run(["false"]) == 4


def test_second_launch_into_a_living_folder_is_refused(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "launch").lock(), pytest.raises(UsageError, match="another run is using this folder"):
        local.run([], tmp_path, PreflightConfig(), print)
    assert local.run([], tmp_path, PreflightConfig(), print) == 0
