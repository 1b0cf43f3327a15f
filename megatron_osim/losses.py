"""Log-probabilities of chosen tokens, and entropies, without a [tokens, vocabulary] fp32 tensor.

The output matrix is applied to a chunk of tokens at a time, on this rank's rows of the vocabulary; the backward pass
computes each chunk's logits again. With one chunk only (small vocabularies and batches) the logits are kept instead.
Softmax statistics are combined over the tensor parallel ranks in two all-reduces of one number per token.

Rows past the real vocabulary never take part. Temperature divides the logits, as SGLang's sampler does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from megatron.core import parallel_state
from megatron.core.tensor_parallel import copy_to_tensor_model_parallel_region, gather_from_sequence_parallel_region
from torch import Tensor

MAX_LOGITS = 1 << 26
"""Elements of one chunk's fp32 logits (256 MiB)."""
_NEVER = -1e30
"""Logit of a padding row; finite, so that 0 * logit is 0."""


@dataclass(frozen=True)
class TokenScores:
    """What the model says at each position about the next token; differentiable."""

    logprobs_T: Tensor
    """Log-probability of the label, or [T, K] of K labels per position."""
    entropy_T: Tensor
    """Entropy of the whole distribution, in nats."""


@dataclass(frozen=True)
class _Plan:
    """What both passes need besides tensors."""

    vocab_start: int
    vocab_size: int
    temperature: float
    chunk_tokens: int
    group: Any


def token_scores(
    hidden: Tensor,
    weight_Vh: Tensor,
    labels_T: Tensor,
    *,
    vocab_size: int,
    temperature: float = 1.0,
    sequence_parallel: bool = False,
    max_logits: int = MAX_LOGITS,
) -> TokenScores:
    """Score `labels_T` ([T] or [T, K] token ids) under the model's last hidden states.

    hidden: [T, 1, h] ([T / tp, 1, h] under sequence parallelism); weight_Vh: this rank's rows of the padded output
    matrix. vocab_size is the real one. All tensor parallel ranks call this together and get the same result.
    """
    if sequence_parallel:
        hidden = gather_from_sequence_parallel_region(hidden, tensor_parallel_output_grad=True)
    else:
        hidden = copy_to_tensor_model_parallel_region(hidden)
    plan = _plan(weight_Vh, vocab_size, temperature, max_logits)
    labels_TK = labels_T if labels_T.dim() == 2 else labels_T.unsqueeze(1)
    logprobs_TK, entropy_T = _ChunkedScores.apply(hidden.flatten(0, 1), weight_Vh, labels_TK, plan)
    return TokenScores(logprobs_TK if labels_T.dim() == 2 else logprobs_TK.squeeze(1), entropy_T)


@torch.no_grad()
def top_k_tokens(
    hidden: Tensor,
    weight_Vh: Tensor,
    k: int,
    *,
    vocab_size: int,
    sequence_parallel: bool = False,
    max_logits: int = MAX_LOGITS,
) -> Tensor:
    """The k likeliest next tokens after each position, likeliest first: int64 [T, k]. Arguments as `token_scores`."""
    if sequence_parallel:
        hidden = gather_from_sequence_parallel_region(hidden, tensor_parallel_output_grad=False)
    plan = _plan(weight_Vh, vocab_size, 1.0, max_logits)
    found = [
        _logits(part, weight_Vh, plan).topk(min(k, len(weight_Vh)), dim=1)
        for part in hidden.flatten(0, 1).split(plan.chunk_tokens)
    ]
    values_Tk = torch.cat([f.values for f in found])
    ids_Tk = torch.cat([f.indices for f in found]) + plan.vocab_start
    if (ranks := dist.get_world_size(plan.group)) > 1:
        pairs = [torch.empty_like(values_Tk) for _ in range(ranks)], [torch.empty_like(ids_Tk) for _ in range(ranks)]
        for parts, mine in zip(pairs, (values_Tk, ids_Tk), strict=True):
            dist.all_gather(parts, mine, group=plan.group)
        values_Tk, ids_Tk = (torch.cat(parts, dim=1) for parts in pairs)
    return ids_Tk.gather(1, values_Tk.topk(k, dim=1).indices)


def _plan(weight_Vh: Tensor, vocab_size: int, temperature: float, max_logits: int) -> _Plan:
    rows = weight_Vh.shape[0]
    return _Plan(
        vocab_start=parallel_state.get_tensor_model_parallel_rank() * rows,
        vocab_size=vocab_size,
        temperature=temperature,
        chunk_tokens=max(1, max_logits // rows),
        group=parallel_state.get_tensor_model_parallel_group(),
    )


def _logits(hidden_th: Tensor, weight_Vh: Tensor, plan: _Plan) -> Tensor:
    """fp32 logits [t, V / tp] of one chunk, divided by the temperature, padding rows masked."""
    logits_tV = (hidden_th @ weight_Vh.t()).float()
    if plan.temperature != 1.0:
        logits_tV /= plan.temperature
    real = plan.vocab_size - plan.vocab_start
    if real < logits_tV.shape[1]:
        logits_tV[:, max(0, real) :] = _NEVER
    return logits_tV


def _local_labels(labels_tK: Tensor, rows: int, plan: _Plan) -> tuple[Tensor, Tensor]:
    """Labels as rows of this rank's weights, and which of them this rank holds."""
    local = labels_tK - plan.vocab_start
    mine = (local >= 0) & (local < rows)
    return local.clamp(0, rows - 1), mine


class _ChunkedScores(torch.autograd.Function):
    """(hidden [T, h], weight [V / tp, h], labels [T, K]) -> (log-probs [T, K], entropy [T])."""

    @staticmethod
    def forward(
        ctx: Any, hidden_Th: Tensor, weight_Vh: Tensor, labels_TK: Tensor, plan: _Plan
    ) -> tuple[Tensor, Tensor]:
        statistics = []
        chunks = hidden_Th.split(plan.chunk_tokens)
        logits_tV = torch.empty(0)
        for hidden_th, labels_tK in zip(chunks, labels_TK.split(plan.chunk_tokens), strict=True):
            logits_tV = _logits(hidden_th, weight_Vh, plan)
            max_t = logits_tV.amax(dim=1)
            exp_tV = (logits_tV - max_t.unsqueeze(1)).exp_()
            local, mine = _local_labels(labels_tK, weight_Vh.shape[0], plan)
            chosen_tK = logits_tV.gather(1, local).masked_fill_(~mine, 0.0)
            statistics.append((max_t, exp_tV.sum(1), (exp_tV * logits_tV).sum(1), chosen_tK))
        max_T, sum_T, weighted_T, chosen_TK = (torch.cat(parts) for parts in zip(*statistics, strict=True))
        if dist.get_world_size(plan.group) > 1:
            global_max_T = max_T.clone()
            dist.all_reduce(global_max_T, op=dist.ReduceOp.MAX, group=plan.group)
            scale_T = (max_T - global_max_T).exp()
            packed = torch.cat([(sum_T * scale_T)[:, None], (weighted_T * scale_T)[:, None], chosen_TK], dim=1)
            dist.all_reduce(packed, group=plan.group)
            max_T, sum_T, weighted_T, chosen_TK = global_max_T, packed[:, 0], packed[:, 1], packed[:, 2:]
        lse_T = max_T + sum_T.log()
        entropy_T = lse_T - weighted_T / sum_T
        kept = logits_tV if len(chunks) == 1 else torch.empty(0)
        ctx.save_for_backward(hidden_Th, weight_Vh, labels_TK, lse_T, entropy_T, kept)
        ctx.plan = plan
        ctx.set_materialize_grads(False)
        return chosen_TK - lse_T.unsqueeze(1), entropy_T

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        grad_logprobs_TK, grad_entropy_T = grads
        hidden_Th, weight_Vh, labels_TK, lse_T, entropy_T, kept = ctx.saved_tensors
        plan: _Plan = ctx.plan
        grad_hidden_Th = torch.empty_like(hidden_Th)
        wants_weight = ctx.needs_input_grad[1]  # False where the output layer is frozen
        grad_weight_Vh = torch.zeros_like(weight_Vh, dtype=torch.float32) if wants_weight else None
        for start in range(0, hidden_Th.shape[0], plan.chunk_tokens):
            part = slice(start, start + plan.chunk_tokens)
            logits_tV = kept if kept.numel() else _logits(hidden_Th[part], weight_Vh, plan)
            logprobs_tV = logits_tV - lse_T[part].unsqueeze(1)
            probs_tV = logprobs_tV.exp()
            grad_tV = torch.zeros_like(probs_tV)
            if grad_logprobs_TK is not None:
                # d log p_y / d z = onehot(y) - p
                grad_tK = grad_logprobs_TK[part]
                grad_tV -= probs_tV * grad_tK.sum(1, keepdim=True)
                local, mine = _local_labels(labels_TK[part], weight_Vh.shape[0], plan)
                grad_tV.scatter_add_(1, local, grad_tK * mine)
            if grad_entropy_T is not None:
                # d H / d z = -p (log p + H)
                spread_tV = probs_tV * (logprobs_tV + entropy_T[part].unsqueeze(1))
                grad_tV -= spread_tV * grad_entropy_T[part].unsqueeze(1)
            grad_tV = (grad_tV / plan.temperature).to(weight_Vh.dtype)
            torch.mm(grad_tV, weight_Vh, out=grad_hidden_Th[part])
            if grad_weight_Vh is not None:
                grad_weight_Vh += grad_tV.t() @ hidden_Th[part]
        grad_weight = None if grad_weight_Vh is None else grad_weight_Vh.to(weight_Vh.dtype)
        return grad_hidden_Th, grad_weight, None, None
