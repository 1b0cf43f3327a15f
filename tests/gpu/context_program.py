"""Runs in two ranks: bf16 with Transformer Engine on one rank, then the same over two context parallel ranks."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from megatron_osim.config import ParallelConfig
from megatron_osim.train_step import forward_logprobs, token_mean_loss, train_step
from tests.gpu.models import make
from tests.megatron_osim.samples import global_batch
from tests.megatron_osim.spmd import layout


def run(out: Path, name: str, world_size: int, context: int) -> tuple[list[list[float]], list[float]]:
    with layout(ParallelConfig(context=context), world_size, out / f"{name}.rendezvous") as ranks:
        if ranks is None:
            return [], []
        trainer = make(ranks, context=context)
        scores = [s.tolist() for s in forward_logprobs(trainer, global_batch(0))]
        steps = [train_step(trainer, global_batch(s, 2), token_mean_loss, lr=1e-3).loss for s in range(10)]
        return scores, steps


def main(out: Path) -> None:
    one_scores, one_losses = run(out, "one", 1, 1)
    scores, losses = run(out, "two", 2, 2)
    if one_scores:
        gap = max(abs(a - b) for x, y in zip(one_scores, scores, strict=True) for a, b in zip(x, y, strict=True))
        (out / "scores.json").write_text(json.dumps({"gap": gap, "one": one_losses, "losses": losses}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
