"""`osim launch` without Slurm: the same jobs in this process, one after the other."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from common.files import read_json
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
