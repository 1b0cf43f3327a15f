"""Adapters against a dense model with the merged weights, and runs of the loop with them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from common.errors import Interrupted
from common.run_folder import RunFolder
from tests.rl import runs

torch = pytest.importorskip("torch")
LORA = {"rank": 4, "alpha": 8.0}
FORMAT_BYTES = 300_000
"""What the checkpoint format adds to this model's tensors (headers, index); less than its base weights."""
OPTIMIZER = {"lr": 1e-2, "schedule": "constant", "clip_grad": 0.0}


def adapters(actor) -> dict[str, tuple[torch.nn.Parameter, torch.nn.Parameter]]:
    """Weight name -> (A, B)."""
    from megatron_osim.convert.parameters import named_parameters

    named = named_parameters(actor.trainer.chunks, actor.trainer.arch)
    stems = [name.removesuffix(".lora.a") for name in named if name.endswith(".lora.a")]
    return {f"{s}.weight": (named[f"{s}.lora.a"], named[f"{s}.lora.b"]) for s in stems}


def test_log_probs_and_gradients_equal_those_of_a_dense_model_with_the_merged_weights(
    model, ranks, tmp_path: Path
) -> None:
    from megatron_osim.convert import export_hf
    from megatron_osim.convert.parameters import named_parameters
    from rl.session import build_actor
    from tests.rl.layout_program import samples

    actor = build_actor(runs.config(model, {"name": "grpo"}, lora=LORA, optimizer=OPTIMIZER), ranks)
    pairs = adapters(actor)
    assert len(pairs) == 8, "q k v, o, gate up and down of two layers"
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for _, b in pairs.values():
            b.copy_(torch.randn(b.shape, generator=rng) * 0.02)
    before = {name: (a.detach().clone(), b.detach().clone()) for name, (a, b) in pairs.items()}
    export_hf(actor.trainer.chunks, actor.trainer.arch, tmp_path / "merged", tokenizer_dir=model)
    dense = build_actor(runs.config(tmp_path / "merged", {"name": "grpo"}, optimizer=OPTIMIZER), ranks)

    batch = actor.prepare(samples(0))
    reference = dense.prepare(samples(0))
    for mine, theirs in zip(batch, reference, strict=True):
        np.testing.assert_allclose(mine.old_logprobs, theirs.old_logprobs, atol=1e-5)
    batch = [replace(s, old_logprobs=s.old_logprobs - 0.1 * s.trainable) for s in reference]
    actor.update(batch, step=0)
    dense.update(batch, step=0)
    scale = LORA["alpha"] / LORA["rank"]
    full = named_parameters(dense.trainer.chunks, dense.trainer.arch)
    for name, (a, b) in pairs.items():
        a_before, b_before = before[name]
        gradient = full[name].main_grad
        largest = float(gradient.abs().max())
        expected_a, expected_b = scale * b_before.t() @ gradient, scale * gradient @ a_before.t()
        torch.testing.assert_close(a.main_grad, expected_a, atol=1e-4 * largest, rtol=1e-3)
        torch.testing.assert_close(b.main_grad, expected_b, atol=1e-4 * largest, rtol=1e-3)


def test_the_loop_trains_adapters_syncs_them_merged_and_resumes_bitwise(model, ranks, tmp_path: Path) -> None:
    from rl.loop import train
    from rl.session import Session

    config = runs.config(
        model, {"name": "opd", "teacher": "ema"}, ema_decay=0.5, lora=LORA, checkpoint={"every_steps": 1}
    )
    whole, stopped = (RunFolder.prepare(tmp_path / name, config) for name in ("whole", "stopped"))
    train(config, whole, ranks)
    original = Session.log

    def stop_after_first(self, *arguments) -> None:
        original(self, *arguments)
        (stopped.path / "stop").touch()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Session, "log", stop_after_first)
        with pytest.raises(Interrupted):
            train(config, stopped, ranks)
    (stopped.path / "stop").unlink()
    train(config, stopped, ranks)
    assert all(0 < line["gap/max"] < 1e-4 for line in runs.metrics(whole.path)), "the engine holds merged weights"
    assert runs.metrics(stopped.path) == runs.metrics(whole.path)
    assert runs.weights(stopped.path) == runs.weights(whole.path)
    assert runs.ledger(stopped.path) == runs.ledger(whole.path)


def test_room_that_the_preflight_asks_for_is_what_a_checkpoint_takes(model, ranks, tmp_path: Path) -> None:
    from launch.allocation.preflight import checkpoint_bytes
    from megatron_osim.checkpoint import Checkpointer
    from rl.session import build_actor

    def sizes(precision: str, rank: int | None) -> tuple[int, int]:
        lora = {"rank": rank} if rank else None
        config = runs.config(model, {"name": "grpo"}, lora=lora, precision=precision)
        trainer = build_actor(config, ranks).trainer
        folder = tmp_path / f"{precision}-{rank}"
        checkpointer = Checkpointer(trainer, folder, config.checkpoint)
        checkpointer.save(1)
        checkpointer.wait()
        return sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()), checkpoint_bytes(config, trainer.arch)

    for precision, rank in (("bf16", 4), ("bf16", 256), ("fp32", 4), ("bf16", None)):
        taken, asked = sizes(precision, rank)
        assert 0 <= taken - asked <= FORMAT_BYTES, (precision, rank, taken, asked)
