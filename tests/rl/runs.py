"""Short runs of the loop on a tiny random model, and what tests compare of them.

As a program: `python -m tests.rl.runs RUN_DIR [PHASE:COUNT]` is one rank of a run that kills itself (SIGKILL) when a
phase of the product is entered for the COUNT-th time: the fault injection of the resume tests.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common.config import validate
from common.run_folder import RunFolder
from envs.ledger import LedgerReader
from rl.config import RLConfig

ROOT = Path(__file__).resolve().parents[2]
LETTERS = "tests.rl.letters:spec"


def config(model: Path, algorithm: dict[str, Any], **changes: Any) -> RLConfig:
    """Three steps of 2 prompts x 3 samples with the embedded engine."""
    base = {
        "model": str(model),
        "tasks": [{"task": LETTERS, "algorithm": algorithm}],
        "steps": 3,
        "groups_per_step": 2,
        "samples_per_prompt": 3,
        "max_tokens_per_micro_batch": 128,
        "sampling": {"max_tokens": 12, "max_context_tokens": 256},
        "rollout": {"kind": "embedded"},
        "optimizer": {"lr": 1e-3, "schedule": "constant"},
        "checkpoint": {"every_steps": 2},
        "timeout_s": 120.0,
        "seed": 5,
    }
    return validate(RLConfig, base | changes, where="test")


def start(run: Path, *arguments: str, module: str = "tests.rl.runs") -> subprocess.Popen[bytes]:
    """One rank in a process of its own; its output goes to RUN/logs/test.log."""
    with (run / "logs" / "test.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", module, str(run), *arguments],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def log_of(run: Path) -> str:
    return (run / "logs" / "test.log").read_text()[-4000:]


def metrics(run: Path) -> list[dict[str, Any]]:
    """Metric lines without what time alone decides."""
    return [
        {k: v for k, v in line.items() if k != "time" and not k.startswith(("seconds/", "utilisation/", "rollout/"))}
        for line in sorted(RunFolder(run).read_metrics("rl"), key=lambda line: line["step"])
    ]


def ledger(run: Path) -> dict[str, Any]:
    """What the ledger says of a run, without wall times."""
    with LedgerReader(run / "ledger") as reader:
        return {
            "episodes": [(r.key, r.episode.seed, r.episode.outcomes, r.episode.traces) for r in reader.episodes()],
            "consumed": reader.consumed(),
        }


def weights(run: Path) -> dict[str, bytes]:
    from safetensors.torch import load_file

    return {name: t.numpy().tobytes() for name, t in load_file(run / "hf" / "model.safetensors").items()}


def _kill_at(owner: Any, name: str, count: int) -> None:
    original: Callable[..., Any] = getattr(owner, name)
    calls = 0

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **kwargs)

    setattr(owner, name, counted)


def main() -> None:
    from common.errors import run_main
    from envs.ledger import Ledger
    from megatron_osim.checkpoint import Checkpointer
    from rl import worker
    from rl.actor.actor import Actor
    from rl.session import Session

    run = Path(sys.argv[1])
    if len(sys.argv) > 2:
        phase, count = sys.argv[2].split(":")
        owner = {"put_episode": Ledger, "put_consumed": Ledger, "update": Actor, "_publish": Checkpointer}
        _kill_at(owner.get(phase, Session), phase, int(count))
    rendezvous = run / "rendezvous"
    rendezvous.unlink(missing_ok=True)
    sys.argv = ["rl.worker", str(run), "--rendezvous", rendezvous.as_uri()]
    run_main(worker.main)


if __name__ == "__main__":
    main()
