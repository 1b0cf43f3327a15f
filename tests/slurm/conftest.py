"""One real cluster a session, one small corpus, and the `osim` command as a user types it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.megatron_osim.corpus import Corpus, make_corpus
from tests.slurm.cluster import CannotRun, Cluster

ROOT = Path(__file__).resolve().parents[2]
SEQUENCE_LENGTH = 128
PATIENCE_S = 400.0
ARCHITECTURE = {
    "model_type": "qwen3",
    "vocab_size": 290,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 512,
    "tie_word_embeddings": True,
}


@pytest.fixture(scope="session")
def slurm() -> Iterator[Cluster]:
    """The cluster; tests are skipped with the reason where it cannot run."""
    try:
        cluster = Cluster.start()
    except CannotRun as e:
        pytest.skip(f"no Slurm here: {e}")
    yield cluster
    cluster.stop()


@dataclass(frozen=True)
class Osim:
    """`osim` with the cluster in its environment, and folders for what it is given."""

    slurm: Cluster
    folder: Path

    def __call__(self, *arguments: object, expect: int = 0, timeout_s: float = PATIENCE_S) -> str:
        """Run one command; its output and errors together."""
        done = subprocess.run(
            [sys.executable, "-m", "launch", *map(str, arguments)],
            cwd=ROOT,
            env=os.environ | self.slurm.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        assert done.returncode == expect, done.stdout
        return done.stdout

    def until(self, run: Path, condition: Callable[[], bool], what: str, *, timeout_s: float = PATIENCE_S) -> None:
        """Wait for something of a run, with a deadline that a crowded machine keeps; says what it saw at the end."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline:
                pytest.fail(f"no {what} after {timeout_s:.0f} s\n{told_by(run)}\n{self.slurm.told()}")
            time.sleep(0.1)

    def file(self, name: str, content: object) -> Path:
        """A YAML file."""
        path = self.folder / name
        path.write_text(yaml.safe_dump(content))
        return path

    def cluster(self, name: str = "cluster.yaml", *, nodes: int = 2, **settings: object) -> Path:
        """A cluster file for this Slurm."""
        base = {
            "code": str(ROOT),
            "python": sys.executable,
            "account": "osim",
            "partition": "gpu",
            "cpu_partition": "cpu",
            "time": "00:10:00",
            "signal_lead_s": 60,
            "gpu_flag": "none",
            "exclusive": False,
            "cpus_per_rank": 2,
            "environment": {"GLOO_SOCKET_IFNAME": "lo"},
            "submit": "sbatch",
            # The machine is busy with other tests: how fast its disk is at that moment is not what is tested.
            "preflight": {"disk_mib": 8, "min_disk_mib_per_s": 0.01},
        }
        return self.file(name, {"nodes": nodes, "gpus_per_node": 1, "slurm": base | settings})


@pytest.fixture
def osim(slurm: Cluster, tmp_path: Path) -> Iterator[Osim]:
    yield Osim(slurm, tmp_path)
    cancel_all(slurm)


def cancel_all(slurm: Cluster) -> None:
    """No job of a test outlives it."""
    if ids := slurm.run("squeue", "-h", "-o", "%A").split():
        slurm.run("scancel", *ids)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return make_corpus(tmp_path_factory.mktemp("corpus"), sequence_length=SEQUENCE_LENGTH)


def midtrain_recipe(corpus: Corpus, **changes: object) -> dict[str, object]:
    """A tiny midtraining as a recipe."""
    base: dict[str, object] = {
        "architecture": ARCHITECTURE,
        "tokenizer": str(corpus.tokenizer),
        "data": {
            "sequence_length": SEQUENCE_LENGTH,
            "sources": [{"name": "train", "prefixes": [str(corpus.train)]}],
        },
        "optimizer": {"lr": 1e-3},
        "checkpoint": {"every_steps": 10},
        "steps": 200,
        "global_batch": 2,
    }
    return base | changes


def has_ended(run: Path) -> bool:
    """Whether the last attempt is over and no other follows."""
    return any(words.startswith("ended") for words in history(run)[-1:])


def history(run: Path) -> list[str]:
    """What the attempts said of themselves; nothing before the first has started."""
    if not (run / "launch" / "history").exists():
        return []
    return [line.split(" ", 3)[3] for line in (run / "launch" / "history").read_text().splitlines()]


def told_by(run: Path) -> str:
    """The history of a run and the ends of its logs."""
    logs = [f"{log}:\n{log.read_text(errors='replace')[-1500:]}" for log in sorted((run / "logs").glob("*"))]
    return "\n".join([*history(run), *logs])
