"""Per-token losses from log-probs and weights. The trainer knows these components and no algorithm names.

Runs on every actor rank that holds logits (the last pipeline stage), in fp32. With the weights of a TrainSample:

    A_t      = advantage_t + reverse_kl_t * clip(log pi_T(t) - log pi_old(t), +-kl_clip)
    r_t      = exp(log pi(t) - log pi_old(t)), or one length-normalised ratio per sequence (GSPO)
    policy_t = -min(r_t A_t, clip(r_t, 1 - low, 1 + high) A_t), at most dual_clip * |A_t| where A_t < 0
               or, detached (CISPO): -stop_gradient(clip(r_t)) A_t log pi(t)
    loss_t   = w_t * policy_t - cross_entropy_t * log pi(t),   w_t = min(pi_old(t) / pi_engine(t), C)

w_t is the truncated importance weight between trainer and engine (Yao et al. 2025, "Your efficient RL framework
secretly brings you off-policy RL training"); it is 1 where the engine saw another context or `tis_cap` is None.
The loss of an optimizer step is sum_t scale(sequence of t) * loss_t over the whole global batch (`sequence_scales`):
an exact mean, however the batch is cut into micro-batches and ranks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rl.config import LossConfig

LOG_RATIO_LIMIT = 20.0
"""Keeps exp() finite; far outside every clip bound."""

METRICS = (
    "tokens",
    "loss",
    "policy",
    "cross_entropy",
    "entropy",
    "kl",
    "ratio",
    "clipped",
    "tis",
    "tis_capped",
    "rkl",
)
"""Sums over trained tokens that `token_losses` returns, in this order; divide by the first."""


@dataclass(frozen=True)
class LossInputs:
    """Everything but the log-probs, for one micro-batch of N positions from S sequences."""

    mask_N: Tensor
    """bool: positions that are trained."""
    sequence_N: Tensor
    """int64 in [0, S)."""
    scale_N: Tensor
    old_logprobs_N: Tensor
    rollout_logprobs_N: Tensor
    """NaN where the engine saw another context."""
    advantage_N: Tensor
    cross_entropy_N: Tensor
    reverse_kl_N: Tensor
    teacher_logprobs_N: Tensor
    clip_low_S: Tensor
    clip_high_S: Tensor
    dual_clip_S: Tensor
    """inf where off."""
    sequence_ratio_S: Tensor
    detached_S: Tensor


def token_losses(logprobs_N: Tensor, entropy_N: Tensor, x: LossInputs, config: LossConfig) -> tuple[Tensor, Tensor]:
    """The scaled loss (a scalar to be summed over micro-batches) and METRICS sums [len(METRICS)], detached, fp64."""
    zero = torch.zeros_like(logprobs_N)
    logprobs_N = torch.where(x.mask_N, logprobs_N, zero)
    old_N = torch.where(x.mask_N, x.old_logprobs_N, zero)
    advantage_N = x.advantage_N + x.reverse_kl_N * (x.teacher_logprobs_N - old_N).clamp(
        -config.kl_clip, config.kl_clip
    )
    ratio_N = torch.exp(_log_ratio(logprobs_N - old_N, x).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT))
    policy_N, clipped_N = _policy_loss(logprobs_N, ratio_N, advantage_N, x)
    tis_N, capped_N = _importance(old_N, x, config.tis_cap)
    cross_entropy_N = -x.cross_entropy_N * logprobs_N
    loss_N = torch.where(x.mask_N, tis_N * policy_N + cross_entropy_N, zero)
    with torch.no_grad():
        # KL(old || new), the non-negative k3 estimator (Schulman 2020).
        drift_N = (logprobs_N - old_N).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)
        kl_N = torch.exp(drift_N) - 1.0 - drift_N
        rkl_N = torch.where(x.reverse_kl_N != 0, old_N - x.teacher_logprobs_N, zero)
        columns = (
            x.mask_N, loss_N, tis_N * policy_N, cross_entropy_N, entropy_N,
            kl_N, ratio_N, clipped_N, tis_N, capped_N, rkl_N,
        )  # fmt: skip
        sums = torch.stack([torch.where(x.mask_N, c.double(), 0.0).sum() for c in columns])
    return (loss_N * x.scale_N).sum(), sums


def _log_ratio(difference_N: Tensor, x: LossInputs) -> Tensor:
    """log r per token: the token's own, or the mean over its sequence (the gradient flows through the mean)."""
    if not bool(x.sequence_ratio_S.any()):
        return difference_N
    count_S = torch.zeros_like(x.clip_low_S).index_add(0, x.sequence_N, x.mask_N.to(difference_N.dtype))
    mean_S = torch.zeros_like(x.clip_low_S).index_add(0, x.sequence_N, difference_N) / count_S.clamp(min=1)
    return torch.where(x.sequence_ratio_S[x.sequence_N], mean_S[x.sequence_N], difference_N)


def _policy_loss(logprobs_N: Tensor, ratio_N: Tensor, advantage_N: Tensor, x: LossInputs) -> tuple[Tensor, Tensor]:
    """The surrogate and where its clip decided."""
    low_N, high_N = 1.0 - x.clip_low_S[x.sequence_N], 1.0 + x.clip_high_S[x.sequence_N]
    bounded_N = torch.minimum(torch.maximum(ratio_N, low_N), high_N)
    plain_N, clip_N = ratio_N * advantage_N, bounded_N * advantage_N
    loss_N = -torch.minimum(plain_N, clip_N)
    # Dual clip: a finite floor under the objective of negative advantages (inf * 0 must not appear).
    dual_N = x.dual_clip_S[x.sequence_N]
    ceiling_N = torch.where(torch.isfinite(dual_N), -dual_N.nan_to_num(posinf=0.0) * advantage_N, torch.inf)
    loss_N = torch.where(advantage_N < 0, torch.minimum(loss_N, ceiling_N), loss_N)
    detached_N = x.detached_S[x.sequence_N]
    loss_N = torch.where(detached_N, -bounded_N.detach() * advantage_N * logprobs_N, loss_N)
    return loss_N, torch.where(detached_N, ratio_N != bounded_N, clip_N < plain_N)


def _importance(old_N: Tensor, x: LossInputs, cap: float | None) -> tuple[Tensor, Tensor]:
    """Truncated importance weights, and where they were cut."""
    known_N = x.mask_N & ~torch.isnan(x.rollout_logprobs_N)
    if cap is None:
        return torch.ones_like(old_N), torch.zeros_like(x.mask_N)
    difference_N = torch.where(known_N, old_N - x.rollout_logprobs_N, torch.zeros_like(old_N))
    weight_N = torch.exp(difference_N.clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT))
    return weight_N.clamp(max=cap), weight_N > cap


def sequence_scales(trained_tokens: Sequence[int], config: LossConfig) -> list[float]:
    """What one token of each sequence weighs in the loss of the whole optimizer step."""
    match config.aggregation:
        case "token_mean":
            return [1.0 / max(1, sum(trained_tokens))] * len(trained_tokens)
        case "sequence_mean":
            return [1.0 / (len(trained_tokens) * max(1, n)) for n in trained_tokens]
        case "constant":
            return [1.0 / (len(trained_tokens) * config.constant_length)] * len(trained_tokens)
