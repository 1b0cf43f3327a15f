"""Runs in four ranks: saves under one layout, goes on under another, and records the losses of both."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from megatron_osim.checkpoint import Checkpointer
from megatron_osim.config import ArchitectureConfig, CheckpointConfig, ParallelConfig
from megatron_osim.runtime import Ranks
from megatron_osim.train_step import token_mean_loss, train_step
from megatron_osim.trainer import Trainer
from tests.megatron_osim.layout_program import MODELS, PLAIN
from tests.megatron_osim.samples import global_batch, make_trainer
from tests.megatron_osim.spmd import layout

SAVED_AT, LAST = 10, 22
ONE = (1, {})
LAYOUTS: dict[str, tuple[int, dict]] = {
    "one": ONE,
    "tp2_sp": (2, {"tensor": 2, "sequence_parallel": True}),
    "pp2": (2, {"pipeline": 2}),
    "pp2_vp2": (2, {"pipeline": 2, "virtual_pipeline": 2}),
    "dp2": (2, {}),
    "tp2_pp2": (4, {"tensor": 2, "pipeline": 2}),
    "tied_tp2_pp2_vp2": (4, {"tensor": 2, "pipeline": 2, "virtual_pipeline": 2, "sequence_parallel": True}),
    "moe_ep2": (2, {"expert": 2}),
    "plain_one": (1, PLAIN),
    "plain_tp2": (2, PLAIN | {"tensor": 2}),
}
RESUMED = {
    "one": ("one", "tp2_sp", "pp2", "dp2"),
    "tp2_pp2": ("one", "pp2_vp2", "tp2_pp2"),
    "pp2_vp2": ("pp2_vp2",),
    "plain_tp2": ("plain_one", "plain_tp2"),
    "tied_tp2_pp2_vp2": ("tied_tp2_pp2_vp2",),
    "moe_ep2": ("moe_ep2",),
}
"""Saved under -> resumed under."""


def base_of(name: str) -> str:
    """The run that a layout is compared with: one process, or the only layout of another model."""
    return name if name.startswith(("tied", "moe")) else "one"


def model_of(name: str) -> ArchitectureConfig:
    return MODELS[next((model for model in ("tied", "moe") if name.startswith(model)), "untied")]


def train(trainer: Trainer, ranks: Ranks, steps: range) -> list[float]:
    losses = []
    for step in steps:
        batches = global_batch(step)[ranks.data_rank :: ranks.data_size]
        losses.append(train_step(trainer, batches, token_mean_loss, lr=1e-3 * min(1.0, (step + 1) / 10)).loss)
    return losses


def save(name: str, out: Path) -> None:
    world_size, parallel = LAYOUTS[name]
    config = ParallelConfig.model_validate(parallel)
    with layout(config, world_size, out / f"save_{name}.rendezvous") as ranks:
        if ranks is None:
            return
        trainer = make_trainer(ranks, model_of(name), **parallel)
        checkpointer = Checkpointer(trainer, out / name, CheckpointConfig())
        losses = train(trainer, ranks, range(SAVED_AT))
        checkpointer.save(SAVED_AT, {"cursor": 7})
        losses += train(trainer, ranks, range(SAVED_AT, LAST))  # written while training goes on
        checkpointer.wait()
        if ranks.is_first:
            (out / f"{name}.json").write_text(json.dumps(losses))


def resume(saved: str, name: str, out: Path) -> None:
    world_size, parallel = LAYOUTS[name]
    config = ParallelConfig.model_validate(parallel)
    with layout(config, world_size, out / f"{saved}_{name}.rendezvous") as ranks:
        if ranks is None:
            return
        trainer = make_trainer(ranks, model_of(name), seed=99, **parallel)
        found = Checkpointer(trainer, out / saved, CheckpointConfig()).load_latest()
        assert found is not None
        assert found.step == SAVED_AT
        assert found.state["extra"] == {"cursor": 7}
        losses = train(trainer, ranks, range(SAVED_AT, LAST))
        if ranks.is_first:
            (out / f"{saved}_to_{name}.json").write_text(json.dumps(losses))


def main(out: Path) -> None:
    for saved, resumed in RESUMED.items():
        save(saved, out)
        for name in resumed:
            resume(saved, name, out)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
