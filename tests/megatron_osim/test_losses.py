"""Chunked, vocabulary-parallel scores against torch's own log-softmax."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from megatron_osim.losses import token_scores
from megatron_osim.runtime import Ranks

T, HIDDEN, VOCAB, ROWS = 37, 16, 300, 384


@pytest.fixture()
def inputs(single: Ranks) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(T, 1, HIDDEN, generator=generator)
    weight = torch.randn(ROWS, HIDDEN, generator=generator)  # padding rows are garbage on purpose
    labels = torch.randint(0, VOCAB, (T, 3), generator=generator)
    return hidden, weight, labels


def reference(hidden: Tensor, weight: Tensor, labels: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    logprobs = torch.log_softmax(hidden[:, 0].double() @ weight[:VOCAB].double().t() / temperature, dim=-1)
    return logprobs.gather(1, labels), -(logprobs.exp() * logprobs).sum(1)


@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize("max_logits", [ROWS, 5 * ROWS, 1 << 26])
def test_scores_and_gradients_equal_the_full_softmax_for_any_chunk(
    inputs: tuple[Tensor, Tensor, Tensor], temperature: float, max_logits: int
) -> None:
    hidden, weight, labels = inputs
    results = []
    for ours in (True, False):
        h, w = hidden.clone().requires_grad_(), weight.clone().requires_grad_()
        if ours:
            found = token_scores(h, w, labels, vocab_size=VOCAB, temperature=temperature, max_logits=max_logits)
            logprobs, entropy = found.logprobs_T, found.entropy_T
        else:
            logprobs, entropy = reference(h, w, labels, temperature)
        (logprobs.square().sum() + (entropy * torch.arange(T)).sum()).backward()
        results.append((logprobs.detach().float(), entropy.detach().float(), h.grad, w.grad))
    for mine, theirs in zip(*results, strict=True):
        torch.testing.assert_close(mine, theirs, atol=2e-4, rtol=2e-5)


def test_rows_past_the_vocabulary_get_no_probability_and_no_gradient(inputs: tuple[Tensor, Tensor, Tensor]) -> None:
    hidden, weight, labels = inputs
    weight = weight.clone().requires_grad_()
    token_scores(hidden, weight, labels, vocab_size=VOCAB).logprobs_T.sum().backward()
    assert weight.grad is not None
    assert weight.grad[VOCAB:].abs().max() == 0
    assert weight.grad[:VOCAB].abs().max() > 0


def test_no_tensor_of_tokens_by_vocabulary_is_kept_between_the_passes(inputs: tuple[Tensor, Tensor, Tensor]) -> None:
    hidden, weight, labels = inputs
    sizes: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
        token_scores(hidden.requires_grad_(), weight, labels, vocab_size=VOCAB, max_logits=5 * ROWS)
    assert max(sizes) <= max(weight.numel(), hidden.numel())
