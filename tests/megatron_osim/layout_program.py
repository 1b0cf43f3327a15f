"""Runs in four ranks: trains the same model under every layout and records what the tests compare."""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file

from megatron_osim.config import OptimizerConfig, ParallelConfig
from megatron_osim.convert import export_hf, load_hf, load_random
from megatron_osim.model import build_model
from megatron_osim.train_step import forward_logprobs, token_mean_loss, train_step
from megatron_osim.trainer import build_trainer
from tests.megatron_osim.samples import global_batch, tiny
from tests.megatron_osim.spmd import layout

STEPS = 20
GLOBAL_BATCH = 4


@dataclass(frozen=True)
class Case:
    """One layout; cases of one `model` must agree."""

    world_size: int
    parallel: dict = field(default_factory=dict)
    model: str = "untied"


PLAIN = {"distributed_optimizer": False}
CASES = {
    "tp1": Case(1, PLAIN),
    "tp2": Case(2, PLAIN | {"tensor": 2}),
    "tp2_sp": Case(2, {"tensor": 2, "sequence_parallel": True}),
    "pp2": Case(2, PLAIN | {"pipeline": 2}),
    "pp2_vp2": Case(2, {"pipeline": 2, "virtual_pipeline": 2}),
    "pp2_vp2_overlap": Case(
        2,
        {"pipeline": 2, "virtual_pipeline": 2, "overlap_p2p_comm": True, "deallocate_pipeline_outputs": False},
    ),
    "pp2_batched": Case(2, PLAIN | {"pipeline": 2, "batch_p2p_comm": True}),
    "pp4_vp2_batched": Case(4, {"pipeline": 4, "virtual_pipeline": 2, "batch_p2p_comm": True}, "deep"),
    "tp2_pp2": Case(4, PLAIN | {"tensor": 2, "pipeline": 2}),
    "dp2": Case(2, PLAIN),
    "dp2_distributed_optimizer": Case(2, {}),
    "dp2_overlap": Case(2, {"overlap_grad_reduce": True}),
    "dp2_tp2_sp": Case(4, {"tensor": 2, "sequence_parallel": True}),
    "selective_recompute": Case(1, PLAIN | {"recompute": "selective"}),
    "tp2_sp_full_recompute": Case(2, {"tensor": 2, "sequence_parallel": True, "recompute": "full"}),
    "cp2": Case(2, {"context": 2}),
    "cp2_tp2_sp": Case(4, {"context": 2, "tensor": 2, "sequence_parallel": True}),
    "cp2_pp2": Case(4, {"context": 2, "pipeline": 2, "recompute": "full"}),
    "tied_tp1": Case(1, PLAIN, "tied"),
    "tied_pp2": Case(2, {"pipeline": 2}, "tied"),
    "tied_tp2_pp2_sp": Case(4, {"tensor": 2, "pipeline": 2, "sequence_parallel": True}, "tied"),
    "qwen2_tp1": Case(1, {}, "qwen2"),
    "qwen2_tp2": Case(2, {"tensor": 2}, "qwen2"),
    "deep_tp1": Case(1, PLAIN, "deep"),
    "moe_tp1": Case(1, {}, "moe"),
    "moe_ep2": Case(2, {"expert": 2}, "moe"),
    "moe_pp2_ep2": Case(4, {"expert": 2, "pipeline": 2}, "moe"),
}
MODELS = {
    "untied": tiny(),
    "tied": tiny(tie_word_embeddings=True),
    "qwen2": tiny(model_type="qwen2"),
    "deep": tiny(num_hidden_layers=8, hidden_size=32, intermediate_size=64, head_dim=8),
    "moe": tiny(
        model_type="qwen3_moe",
        num_hidden_layers=2,
        moe={"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32},
    ),
}


def run_case(name: str, case: Case, out: Path) -> None:
    arch = MODELS[case.model]
    parallel = ParallelConfig.model_validate(case.parallel)
    with layout(parallel, case.world_size, out / f"{name}.rendezvous") as ranks:
        if ranks is None:
            return
        chunks = build_model(arch, parallel)
        load_random(chunks, arch, seed=1)
        export_hf(chunks, arch, out / f"{name}.initial")
        trainer = build_trainer(chunks, arch, parallel, OptimizerConfig(weight_decay=0.1), ranks)
        scores = forward_logprobs(trainer, global_batch(0, GLOBAL_BATCH), temperature=0.7)
        schedule = OptimizerConfig(lr=1e-3, warmup_steps=10)
        losses, norms = [], []
        for step in range(STEPS):
            batches = global_batch(step, GLOBAL_BATCH)[ranks.data_rank :: ranks.data_size]
            result = train_step(trainer, batches, token_mean_loss, lr=schedule.learning_rate(step, STEPS))
            losses.append(result.loss)
            norms.append(result.grad_norm)
        export_hf(chunks, arch, out / f"{name}.trained")
        # Loading what was exported gives the same shards back, bit by bit.
        before = [p.clone() for c in chunks for p in c.parameters()]
        load_random(chunks, arch, seed=2)
        load_hf(chunks, arch, out / f"{name}.trained")
        same = all(
            torch.equal(a, b) for a, b in zip(before, (p for c in chunks for p in c.parameters()), strict=True)
        )
        record = {
            "losses": losses,
            "norms": norms,
            "round_trip": same,
            "logprobs": [s.tolist() for s in scores],
            "tensors": len(load_file(out / f"{name}.initial" / "model.safetensors")),
        }
        (out / f"{name}.rank{ranks.rank}.json").write_text(json.dumps(record))


def main(out: Path) -> None:
    wanted = os.environ.get("CASES", "").split(",") if os.environ.get("CASES") else list(CASES)
    for name in wanted:
        started = time.perf_counter()
        run_case(name, CASES[name], out)
        print(f"{name}: {time.perf_counter() - started:.1f} s", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
