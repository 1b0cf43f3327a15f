"""Packed samples never influence each other, and the loss is a token mean over the whole global batch."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from megatron_osim.batch import PackedBatch
from megatron_osim.runtime import Ranks
from megatron_osim.train_step import LossSum, TokenScores, forward_scores, token_mean_loss, train_step
from megatron_osim.trainer import Trainer
from tests.megatron_osim.samples import make_trainer, packed, sequences, tiny

LENGTHS = (13, 30, 21)


@pytest.fixture(scope="module")
def trainer(single: Ranks) -> Trainer:
    return make_trainer(single, tiny())


def one_by_one(batch: PackedBatch) -> list[PackedBatch]:
    bounds = batch.cu_seqlens.tolist()
    return [
        PackedBatch(
            batch.token_ids_T[s:e],
            batch.labels_T[s:e],
            torch.tensor([0, e - s], dtype=torch.int32),
            {name: v[s:e] for name, v in batch.values.items()},
        )
        for s, e in pairwise(bounds)
    ]


def gradients(trainer: Trainer, batches: list[PackedBatch]) -> tuple[float, list[Tensor]]:
    result = train_step(trainer, batches, token_mean_loss, lr=0.0, accept=lambda loss, norm: False)
    return result.loss, [p.main_grad.clone() for p in trainer.chunks[0].parameters()]


def test_packed_samples_give_the_loss_and_gradients_of_separate_ones(trainer: Trainer) -> None:
    batch = packed(0, LENGTHS)
    loss, grads = gradients(trainer, [batch])
    separate_loss, separate_grads = gradients(trainer, one_by_one(batch))
    assert loss == pytest.approx(separate_loss, abs=1e-6)
    for a, b in zip(grads, separate_grads, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=0)


@pytest.mark.parametrize("recompute", ["selective", "full"])
def test_recomputing_activations_changes_no_bit_of_loss_and_gradients(
    single: Ranks, trainer: Trainer, recompute: str
) -> None:
    batches = [packed(i, LENGTHS) for i in range(2)]
    loss, grads = gradients(trainer, batches)
    other_loss, other_grads = gradients(make_trainer(single, tiny(), recompute=recompute), batches)
    assert loss == other_loss
    assert all(torch.equal(a, b) for a, b in zip(grads, other_grads, strict=True))


def test_changing_one_sample_leaves_the_others_scores_bitwise_alone(trainer: Trainer) -> None:
    first = sequences(0, LENGTHS)
    second = [sequences(9, LENGTHS)[0], *first[1:]]
    [a], [b] = (forward_scores(trainer, [PackedBatch.from_sequences(s)]) for s in (first, second))
    assert not torch.equal(a.logprobs_T[:12], b.logprobs_T[:12])
    assert torch.equal(a.logprobs_T[13:], b.logprobs_T[13:])


def test_positions_restart_at_every_sample(trainer: Trainer) -> None:
    # Megatron's rotary embedding reads a table as long as the batch as one of absolute positions.
    sample = sequences(3, (32,))[0]
    [twice] = forward_scores(trainer, [PackedBatch.from_sequences([sample, sample])])
    torch.testing.assert_close(twice.logprobs_T[:31], twice.logprobs_T[32:63], atol=1e-6, rtol=0)


def test_padding_changes_nothing(trainer: Trainer) -> None:
    batch = packed(1, LENGTHS)
    loss, grads = gradients(trainer, [batch])
    padded_loss, padded_grads = gradients(trainer, [batch.padded(101)])
    assert loss == pytest.approx(padded_loss, abs=1e-6)
    for a, b in zip(grads, padded_grads, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=0)


def test_the_loss_is_a_token_mean_for_any_split_into_micro_batches(trainer: Trainer) -> None:
    """Bins with very different numbers of trained tokens: a mean of means would differ."""
    batches = [packed(i, (5,) if i % 2 else (60,)) for i in range(4)]
    loss, grads = gradients(trainer, batches)
    merged = PackedBatch(
        torch.cat([b.token_ids_T for b in batches]),
        torch.cat([b.labels_T for b in batches]),
        torch.tensor([0, 60, 65, 125, 130], dtype=torch.int32),
        {"weight": torch.cat([b.values["weight"] for b in batches])},
    )
    merged_loss, merged_grads = gradients(trainer, [merged])
    assert loss == pytest.approx(merged_loss, abs=1e-6)
    for a, b in zip(grads, merged_grads, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=0)


def test_fractional_counts_and_metrics_are_summed_over_the_batch(trainer: Trainer) -> None:
    def loss_fn(scores: TokenScores, batch: PackedBatch) -> LossSum:
        return LossSum(-scores.logprobs_T.sum(), 0.25, {"entropy": scores.entropy_T.sum()})

    batches = [packed(0), packed(1)]
    scored = forward_scores(trainer, batches)
    result = train_step(trainer, batches, loss_fn, lr=0.0)
    assert result.count == 0.5
    assert result.loss == pytest.approx(-sum(s.logprobs_T.sum().item() for s in scored) / 0.5, rel=1e-6)
    assert result.mean("entropy") == pytest.approx(sum(s.entropy_T.sum().item() for s in scored) / 0.5, rel=1e-6)


def test_a_refused_step_changes_neither_weights_nor_optimizer(trainer: Trainer) -> None:
    before = [p.detach().clone() for p in trainer.chunks[0].parameters()]
    result = train_step(trainer, [packed(0)], token_mean_loss, lr=1.0, accept=lambda loss, norm: False)
    assert not result.updated
    assert result.grad_norm > 0
    assert all(torch.equal(a, b) for a, b in zip(before, trainer.chunks[0].parameters(), strict=True))


def test_a_batch_without_trained_tokens_is_not_a_step(trainer: Trainer) -> None:
    empty = packed(0).with_values(weight=torch.zeros(64))
    result = train_step(trainer, [empty], token_mean_loss, lr=1.0)
    assert not result.updated
    assert result.count == 0


def test_values_belong_to_the_token_that_is_predicted() -> None:
    batch = PackedBatch.from_sequences([[5, 6, 7], [8, 9]], {"weight": [[1, 2, 3], [4, 5]]})
    assert batch.labels_T.tolist() == [6, 7, 0, 9, 0]
    assert batch.values["weight"].tolist() == [2, 3, 0, 5, 0]
    assert batch.position_ids_T.tolist() == [0, 1, 2, 0, 1]
    assert [v.tolist() for v in batch.split(batch.values["weight"])] == [[2, 3], [5]]
