"""Midtraining and RL runs of tiny models, as processes of one or two ranks, and what is compared of them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from safetensors.numpy import load_file

from common.config import Config
from common.run_folder import RunFolder
from tests.chaos.process import Child, call

COMPARED = ("loss", "grad_norm", "lr", "trained_tokens", "bins", "epochs", "updated")
PRELOAD = ("torch", "megatron_osim.midtrain", "megatron_osim.runtime", "safetensors.torch", "megatron_osim.worker")


def rank(module: str, run: str, rendezvous: str, rank: int, world_size: int, timeout_s: float | None) -> None:
    """One rank, as `launch.local` or torchrun start it."""
    import importlib

    import torch

    torch.set_num_threads(1)
    sys.argv = [module, run, "--rank", str(rank), "--world-size", str(world_size), "--rendezvous", rendezvous]
    if timeout_s is not None:
        sys.argv += ["--timeout-s", str(timeout_s)]
    importlib.import_module(module).main()


def start(module: str, run: Path, ranks: int = 1, *, timeout_s: float | None = None) -> list[Child]:
    """All ranks of a run, each in a session of its own; output in RUN/logs/chaosR.log."""
    rendezvous = run / "rendezvous"  # not as_uri(): torch does not decode what that encodes
    rendezvous.unlink(missing_ok=True)
    return [
        call(rank, module, str(run), f"file://{rendezvous}", i, ranks, timeout_s, log=run / "logs" / f"chaos{i}.log")
        for i in range(ranks)
    ]


def new_run(path: Path, config: Config) -> RunFolder:
    """A run folder that no process has touched yet."""
    return RunFolder.prepare(path, config)


def weights(run: Path) -> dict[str, bytes]:
    """The export's tensors."""
    return {name: t.tobytes() for name, t in load_file(run / "hf" / "model.safetensors").items()}


def midtrain_facts(run: Path) -> dict[str, Any]:
    """What must not depend on disturbances."""
    folder = RunFolder(run)
    lines = sorted(folder.read_metrics("midtrain"), key=lambda line: line["step"])
    return {
        "steps": [[line["step"], *(line[key] for key in COMPARED)] for line in lines],
        "validation": [[line["step"], line["loss"]] for line in folder.read_metrics("midtrain_validation")],
        "weights": weights(run),
    }


def differing(found: dict[str, Any], truth: dict[str, Any]) -> str:
    """The names of what differs."""
    names = [key for key in truth if found.get(key) != truth[key]]
    return f"differs in {', '.join(names)}" if names else ""
