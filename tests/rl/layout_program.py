"""Runs in two ranks: the same updates under every layout, then the loop; records what the tests compare."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from common.files import write_json
from common.run_folder import RunFolder
from megatron_osim.checkpoint import Checkpointer
from megatron_osim.config import ParallelConfig
from megatron_osim.convert import export_hf
from rl.loop import train
from rl.samples import Surrogate, TrainSample
from rl.session import build_actor
from tests.megatron_osim.spmd import layout
from tests.rl import runs

LAYOUTS = {
    "one": (1, {}),
    "tp2": (2, {"tensor": 2, "sequence_parallel": True}),
    "pp2": (2, {"pipeline": 2}),
    "dp2": (2, {}),
}
LORA_LAYOUTS = {
    "tp2": (2, {"tensor": 2, "sequence_parallel": True}),
    "one": (1, {}),
    "tp2_plain": (2, {"tensor": 2}),
    "tp2_recompute": (2, {"tensor": 2, "sequence_parallel": True, "recompute": "full"}),
    "pp2": (2, {"pipeline": 2}),
    "dp2": (2, {}),
}
SURROGATES = (Surrogate(), Surrogate(sequence_ratio=True), Surrogate(detached=True, clip_low=1.0))


def samples(seed: int, count: int = 7) -> list[TrainSample]:
    """Sequences of different lengths that use every loss component."""
    rng = np.random.default_rng(seed)
    out = []
    for i in range(count):
        n = int(rng.integers(8, 60))
        trainable = (np.arange(n) >= n // 2) & (rng.random(n) > 0.2)
        trainable[-1] = True

        def weights(present: bool, mask=trainable, n=n):
            return np.where(mask, rng.normal(size=n), 0).astype(np.float32) if present else None

        prefix = rng.integers(3, 300, 5).astype(np.int32) if i % 3 else None
        out.append(
            TrainSample(
                ids=rng.integers(3, 300, n).astype(np.int32),
                trainable=trainable,
                episode_id=f"e{i}",
                prompt_id=f"p{i // 2}",
                seat="s",
                version=0,
                rollout_logprobs=np.where(trainable, -5.8, 0).astype(np.float32) if i % 2 else None,
                advantage=weights(i % 4 != 3),
                cross_entropy=weights(i % 4 == 3),
                reverse_kl=weights(i % 3 == 2),
                top_k_kl=abs(weights(True)) if i % 3 == 1 else None,
                top_k=4 if i % 3 == 1 else 0,
                teacher_prefix=prefix,
                teacher_temperature=0.5 if i == 4 else 1.0,
                surrogate=SURROGATES[i % 3],
            )
        )
    return out


def record(out: Path, name: str, model: Path) -> None:
    world_size, parallel = LAYOUTS[name]
    # With Adam's usual eps, a gradient that is nearly 0 is rounding noise divided by itself.
    optimizer = {"lr": 1e-3, "schedule": "constant", "eps": 1e-4}
    config = runs.config(
        model,
        {"name": "grpo"},
        parallel=parallel,
        mini_batches=2,
        max_tokens_per_micro_batch=80,
        optimizer=optimizer,
    )
    with layout(ParallelConfig(**parallel), world_size, out / f"{name}.rendezvous") as ranks:
        if ranks is None:
            return
        actor = build_actor(config, ranks)
        steps = []
        for step in range(2):
            # Old log-probs that are not the present ones: ratios and clips matter.
            batch = [
                replace(s, old_logprobs=s.old_logprobs - 0.1 * s.trainable) for s in actor.prepare(samples(step))
            ]
            update = actor.update(batch, step=step)
            logprobs = [s.old_logprobs.tolist() for s in batch if s.old_logprobs is not None]
            teacher = [s.teacher_logprobs.tolist() for s in batch if s.teacher_logprobs is not None]
            teacher += [s.top_k_teacher.tolist() for s in batch if s.top_k_teacher is not None]
            ids = [s.top_k_ids.tolist() for s in batch if s.top_k_ids is not None]
            steps.append({"update": update, "logprobs": logprobs, "teacher": teacher, "ids": ids})
        write_json(out / f"{name}-{ranks.rank}.json", steps)
        export_hf(actor.trainer.chunks, actor.trainer.arch, out / name / "hf")


def record_lora(out: Path, name: str, model: Path) -> None:
    """Two updates of adapters; then a checkpoint, which the first layout writes and all others read."""
    world_size, parallel = LORA_LAYOUTS[name]
    config = runs.config(
        model,
        {"name": "grpo"},
        parallel=parallel,
        lora={"rank": 4, "alpha": 8},
        max_tokens_per_micro_batch=80,
        optimizer={"lr": 1e-2, "schedule": "constant", "eps": 1e-4},
    )
    with layout(ParallelConfig(**parallel), world_size, out / f"lora-{name}.rendezvous") as ranks:
        if ranks is None:
            return
        actor = build_actor(config, ranks)
        updates = [actor.update(actor.prepare(samples(step)), step=step) for step in range(2)]
        folder = out / f"lora-{name}"
        export_hf(actor.trainer.chunks, actor.trainer.arch, folder / "hf")
        if ranks.is_first:
            write_json(out / f"lora-{name}.json", {"norms": [u.grad_norm for u in updates]})
        if name == "tp2":
            checkpointer = Checkpointer(actor.trainer, out / "lora-checkpoints", config.checkpoint)
            checkpointer.save(2)
            checkpointer.wait()
        fresh = build_actor(config, ranks)
        Checkpointer(fresh.trainer, out / "lora-checkpoints", config.checkpoint).load_latest()
        export_hf(fresh.trainer.chunks, fresh.trainer.arch, folder / "loaded" / "hf")


def loop(out: Path, name: str, model: Path) -> None:
    world_size, parallel = LAYOUTS[name]
    config = runs.config(model, {"name": "opd"}, parallel=parallel, steps=2)
    with layout(ParallelConfig(**parallel), world_size, out / f"{name}-loop.rendezvous") as ranks:
        if ranks is not None:
            train(config, RunFolder.prepare(out / f"{name}-loop", config), ranks)


def main(out: Path) -> None:
    model = Path((out / "model.txt").read_text())
    for name in LAYOUTS:
        record(out, name, model)
    for name in ("one", "tp2", "dp2"):
        loop(out, name, model)
    for name in LORA_LAYOUTS:
        record_lora(out, name, model)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
