"""Transformer Engine, bf16 and FP8 on one GPU, against the local layers that CPU tests hold to transformers."""

from __future__ import annotations

import pytest
import torch

from megatron_osim.batch import PackedBatch
from megatron_osim.config import Fp8Config
from megatron_osim.losses import token_scores
from megatron_osim.runtime import Ranks
from megatron_osim.train_step import forward_logprobs, token_mean_loss, train_step
from megatron_osim.trainer import Trainer
from tests.gpu.models import LOCAL, make
from tests.megatron_osim.samples import global_batch, packed, sequences

pytestmark = pytest.mark.gpu
BF16_LOGPROB = 0.05
"""Rounding of bf16 activations over four layers."""


def losses(trainer: Trainer, steps: int) -> list[float]:
    return [train_step(trainer, global_batch(s, 2), token_mean_loss, lr=1e-3).loss for s in range(steps)]


def largest_gap(a: list[torch.Tensor], b: list[torch.Tensor]) -> float:
    return max(float((x - y).abs().max()) for x, y in zip(a, b, strict=True))


def test_local_layers_give_the_same_numbers_in_fp32_and_bf16(gpu: Ranks) -> None:
    exact = forward_logprobs(make(gpu, precision="fp32"), global_batch(0))
    assert largest_gap(forward_logprobs(make(gpu, capability=LOCAL), global_batch(0)), exact) < BF16_LOGPROB


@pytest.mark.usefixtures("transformer_engine")
def test_transformer_engine_agrees_with_the_local_layers(gpu: Ranks) -> None:
    local, engine = (forward_logprobs(make(gpu, capability=c), global_batch(0)) for c in (LOCAL, None))
    assert largest_gap(local, engine) < BF16_LOGPROB
    local_losses, engine_losses = (losses(make(gpu, capability=c), 10) for c in (LOCAL, None))
    assert local_losses == pytest.approx(engine_losses, abs=0.02)


@pytest.mark.usefixtures("transformer_engine")
def test_packed_samples_are_scored_as_if_alone(gpu: Ranks) -> None:
    trainer = make(gpu)
    samples = sequences(0, (13, 30, 21, 64))
    together = PackedBatch.from_sequences(samples)
    [scores] = forward_logprobs(trainer, [together])
    alone = forward_logprobs(trainer, [PackedBatch.from_sequences([s]) for s in samples])
    parts = together.split(scores)
    assert largest_gap(parts, [a[:-1] for a in alone]) < BF16_LOGPROB


@pytest.mark.parametrize("fp8", [None, *(Fp8Config(recipe=r) for r in ("tensorwise", "delayed", "blockwise"))])
@pytest.mark.usefixtures("transformer_engine")
def test_training_in_bf16_and_fp8_follows_fp32(gpu: Ranks, fp8: Fp8Config | None) -> None:
    if fp8 is not None and torch.cuda.get_device_capability() < (9, 0):
        pytest.skip("FP8 needs compute capability 9.0 (H100)")
    found, exact = losses(make(gpu, fp8=fp8), 20), losses(make(gpu, precision="fp32"), 20)
    assert found[-1] < found[0] - 0.05
    assert found == pytest.approx(exact, abs=0.05 if fp8 is None else 0.15)


@pytest.mark.parametrize("recompute", ["selective", "full"])
def test_recomputation_changes_the_memory_and_not_the_loss(gpu: Ranks, recompute: str) -> None:
    batches = [packed(0, (4096,))]

    def run(mode: str) -> tuple[float, int]:
        trainer = make(gpu, recompute=mode)
        torch.cuda.reset_peak_memory_stats()
        loss = train_step(trainer, batches, token_mean_loss, lr=0.0).loss
        return loss, torch.cuda.max_memory_allocated()

    (loss, most), (other_loss, less) = run("none"), run(recompute)
    assert other_loss == pytest.approx(loss, abs=1e-3)
    assert less <= most


def test_the_chunked_loss_never_holds_tokens_by_vocabulary(gpu: Ranks) -> None:
    tokens, hidden, vocab = 16384, 1024, 151936
    states = torch.randn(tokens, 1, hidden, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    weight = torch.randn(vocab, hidden, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    labels = torch.randint(0, vocab, (tokens,), device="cuda")
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    token_scores(states, weight, labels, vocab_size=vocab).logprobs_T.sum().backward()
    extra = torch.cuda.max_memory_allocated() - before
    assert extra < 0.3 * tokens * vocab * 4
