"""Per-token losses from log-probs and weights. The trainer knows these components and no algorithm names.

Runs on every actor rank that holds logits (the last pipeline stage), in fp32. With the weights of a TrainSample:

    A_t      = advantage_t + reverse_kl_t * clip(log pi_T(t) - log pi_old(t), +-kl_clip)
    r_t      = exp(log pi(t) - log pi_old(t)), or one length-normalised ratio per sequence (GSPO)
    policy_t = -min(r_t A_t, clip(r_t, 1 - low, 1 + high) A_t), at most dual_clip * |A_t| where A_t < 0
               or, detached (CISPO): -stop_gradient(clip(r_t)) A_t log pi(t)
    top_k_t  = sum over K and the rest of pi log(pi / pi_T), K = the k likeliest tokens of pi_old
    loss_t   = w_t * policy_t - cross_entropy_t * log pi(t) + top_k_kl_t * top_k_t
    w_t      = min(pi_old(t) / pi_engine(t), C)

w_t is the truncated importance weight between trainer and engine (Yao et al. 2025, "Your efficient RL framework
secretly brings you off-policy RL training"); it is 1 where the engine saw another context or `tis_cap` is None.
top_k is the reverse KL of the two distributions after all tokens outside K are made one (no renormalisation: it is at
most the full KL, and equals it when K is the vocabulary; arXiv:2601.20802).
The loss of an optimizer step is sum_t scale_t * loss_t / (trained tokens) over the whole global batch, an exact mean
however the batch is cut into micro-batches and ranks (`sequence_scales`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from megatron_osim.batch import PackedBatch
from megatron_osim.losses import TokenScores
from megatron_osim.train_step import LossFn, LossSum
from rl.config import LossConfig
from rl.samples import Floats, TrainSample

Values = npt.NDArray[Any]
LOG_RATIO_LIMIT = 20.0
"""Keeps exp() finite; far outside every clip bound."""
TINY_REST = 1e-6
"""Least probability of the tokens outside the top k: fp32 sums of probabilities are no better."""


@dataclass(frozen=True)
class LossInputs:
    """Everything but the log-probs at N positions, in fp32. Made by `pack`, travels as PackedBatch.values."""

    mask: Tensor
    """1 where the label is trained."""
    scale: Tensor
    old_logprobs: Tensor
    rollout_logprobs: Tensor
    """NaN where the engine saw another context."""
    advantage: Tensor
    cross_entropy: Tensor
    reverse_kl: Tensor
    teacher_logprobs: Tensor
    clip_low: Tensor
    clip_high: Tensor
    dual_clip: Tensor
    """inf where off."""
    sequence_ratio: Tensor
    """1 where the ratio is the sequence's."""
    detached: Tensor
    """1 where the clipped ratio is a constant."""
    top_k_kl: Tensor
    top_k_teacher: Tensor | None = None
    """[N, K]; -inf marks a candidate that is none (samples with fewer)."""


def pack(samples: Sequence[TrainSample], scales: Sequence[float]) -> PackedBatch:
    """One micro-batch of samples that have their old log-probs (and teacher's, where they are weighed by it)."""
    rows = [_inputs(s, scale) for s, scale in zip(samples, scales, strict=True)]
    values: dict[str, list[Values]] = {name: [row[name] for row in rows] for name in rows[0]}
    width = max(s.top_k for s in samples)
    if width:
        values["top_k_teacher"] = [_widened(s, s.top_k_teacher, width, -math.inf) for s in samples]
    batch = PackedBatch.from_sequences([s.ids for s in samples], values)
    if width:
        batch = batch.with_candidates([_widened(s, s.top_k_ids, width, 0) for s in samples], keep_labels=True)
    return batch


def empty_batch() -> PackedBatch:
    """Two tokens that train nothing: a micro-batch of a rank that has no samples left."""
    zeros = {name: [np.zeros(2, np.float32)] for name in LossInputs.__dataclass_fields__ if name != "top_k_teacher"}
    return PackedBatch.from_sequences([np.zeros(2, np.int32)], zeros)


def _widened(s: TrainSample, values: Values | None, width: int, fill: float) -> Values:
    """[T, K] as [T, width]."""
    if values is None:
        if s.top_k:
            raise ValueError(f"episode {s.episode_id}: top-k candidates are missing; Actor.prepare fills them")
        return np.full((len(s.ids), width), fill)
    wide: Values = np.pad(values, ((0, 0), (0, width - values.shape[1])), constant_values=fill)
    return wide


def _inputs(s: TrainSample, scale: float) -> dict[str, Floats]:
    def known(values: Floats | None, default: float = 0.0) -> Floats:
        return np.full(len(s.ids), default, np.float32) if values is None else values

    if s.old_logprobs is None or (s.reverse_kl is not None and s.teacher_logprobs is None):
        raise ValueError(f"episode {s.episode_id}: log-probs are missing; Actor.prepare fills them")
    return {
        "mask": s.trainable.astype(np.float32),
        "scale": known(None, scale),
        "old_logprobs": s.old_logprobs,
        "rollout_logprobs": known(s.rollout_logprobs, math.nan),
        "advantage": known(s.advantage),
        "cross_entropy": known(s.cross_entropy),
        "reverse_kl": known(s.reverse_kl),
        "teacher_logprobs": known(s.teacher_logprobs),
        "clip_low": known(None, s.surrogate.clip_low),
        "clip_high": known(None, s.surrogate.clip_high),
        "dual_clip": known(None, s.surrogate.dual_clip or math.inf),
        "sequence_ratio": known(None, float(s.surrogate.sequence_ratio)),
        "detached": known(None, float(s.surrogate.detached)),
        "top_k_kl": known(s.top_k_kl),
    }


def sequence_scales(trained_tokens: Sequence[int], config: LossConfig) -> list[float]:
    """What one token of each sequence of the global batch weighs, relative to a plain token mean."""
    tokens, sequences = sum(trained_tokens), len(trained_tokens)
    match config.aggregation:
        case "token_mean":
            return [1.0] * sequences
        case "sequence_mean":
            return [tokens / (sequences * n) for n in trained_tokens]
        case "constant":
            return [tokens / (sequences * config.constant_length)] * sequences


def loss_fn(config: LossConfig) -> LossFn:
    """The trainer's loss function; its metrics are sums over trained tokens."""

    def loss(scores: TokenScores, batch: PackedBatch) -> LossSum:
        x = LossInputs(**batch.values)
        segment_N = torch.repeat_interleave(batch.cu_seqlens.diff().long())
        if x.top_k_teacher is None:
            return token_losses(scores.logprobs_T, scores.entropy_T, segment_N, x, config)
        label_N, candidates_NK = scores.logprobs_T[:, 0], scores.logprobs_T[:, 1:]
        return token_losses(label_N, scores.entropy_T, segment_N, x, config, candidates_NK)

    return loss


def token_losses(
    logprobs_N: Tensor,
    entropy_N: Tensor,
    segment_N: Tensor,
    x: LossInputs,
    config: LossConfig,
    candidates_NK: Tensor | None = None,
) -> LossSum:
    """The formula of this module. segment_N: int64, which sequence a position belongs to. candidates_NK: log-probs of
    each position's top-k candidates."""
    trained_N, zero_N = x.mask > 0, torch.zeros_like(logprobs_N)
    logprobs_N = torch.where(trained_N, logprobs_N, zero_N)
    old_N = torch.where(trained_N, x.old_logprobs, zero_N)
    advantage_N = x.advantage + x.reverse_kl * (x.teacher_logprobs - old_N).clamp(-config.kl_clip, config.kl_clip)
    log_ratio_N = _log_ratio(logprobs_N - old_N, segment_N, x)
    ratio_N = torch.exp(log_ratio_N.clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT))
    policy_N, clipped_N = _policy_loss(logprobs_N, ratio_N, advantage_N, x)
    importance_N, capped_N = _importance(old_N, trained_N, x, config.tis_cap)
    cross_entropy_N = -x.cross_entropy * logprobs_N
    distilled_N = x.top_k_kl > 0
    top_k_N = zero_N if candidates_NK is None else _top_k_kl(candidates_NK, x, distilled_N & trained_N)
    loss_N = torch.where(trained_N, importance_N * policy_N + cross_entropy_N + x.top_k_kl * top_k_N, zero_N)
    drift_N = (logprobs_N - old_N).detach().clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)
    metrics_N = {
        "policy_loss": importance_N * policy_N,
        "cross_entropy": cross_entropy_N,
        "entropy": entropy_N,
        # KL(old || new), the non-negative k3 estimator (Schulman 2020).
        "kl": torch.exp(drift_N) - 1.0 - drift_N,
        "ratio": ratio_N,
        "clip_share": clipped_N,
        "importance": importance_N,
        "importance_capped_share": capped_N,
        "reverse_kl": torch.where(x.reverse_kl != 0, old_N - x.teacher_logprobs, zero_N),
        "reverse_kl_tokens": x.reverse_kl != 0,
        "top_k_kl": torch.where(distilled_N, top_k_N, zero_N),
        "top_k_kl_tokens": distilled_N,
    }
    sums = {name: torch.where(trained_N, v.detach().double(), 0.0).sum() for name, v in metrics_N.items()}
    return LossSum((loss_N * x.scale).sum(), x.mask.sum(), sums)


def _top_k_kl(student_NK: Tensor, x: LossInputs, where_N: Tensor) -> Tensor:
    """KL(student || teacher) over the candidates and the rest as one; 0 elsewhere than `where_N`."""
    assert x.top_k_teacher is not None
    real_NK = torch.isfinite(x.top_k_teacher) & where_N.unsqueeze(1)
    nothing = torch.full_like(student_NK, -math.inf)
    student_NK, teacher_NK = torch.where(real_NK, student_NK, nothing), torch.where(real_NK, x.top_k_teacher, nothing)
    # Where there is no candidate, 0 * (-inf + inf) must not appear.
    gap_NK = torch.where(real_NK, student_NK, 0.0) - torch.where(real_NK, teacher_NK, 0.0)
    rest_N, teacher_rest_N = (1.0 - p.exp().sum(1) for p in (student_NK, teacher_NK))
    # No gradient where rounding has eaten the rest.
    rest_N, teacher_rest_N = rest_N.clamp(min=TINY_REST), teacher_rest_N.clamp(min=TINY_REST)
    kl_N = (student_NK.exp() * gap_NK).sum(1) + rest_N * (rest_N.log() - teacher_rest_N.log())
    return torch.where(where_N, kl_N, 0.0)


def _log_ratio(difference_N: Tensor, segment_N: Tensor, x: LossInputs) -> Tensor:
    """log r per token: the token's own, or the mean over its sequence (the gradient flows through the mean)."""
    if not bool(x.sequence_ratio.any()):
        return difference_N
    zero_S = difference_N.new_zeros(int(segment_N.max()) + 1)
    count_S = zero_S.index_add(0, segment_N, x.mask.to(difference_N))
    mean_S = zero_S.index_add(0, segment_N, difference_N) / count_S.clamp(min=1)
    return torch.where(x.sequence_ratio > 0, mean_S[segment_N], difference_N)


def _policy_loss(logprobs_N: Tensor, ratio_N: Tensor, advantage_N: Tensor, x: LossInputs) -> tuple[Tensor, Tensor]:
    """The surrogate, and where its clip decided."""
    bounded_N = torch.minimum(torch.maximum(ratio_N, 1.0 - x.clip_low), 1.0 + x.clip_high)
    plain_N, clip_N = ratio_N * advantage_N, bounded_N * advantage_N
    # inf * 0 must not appear where dual clip is off.
    ceiling_N = torch.where(torch.isfinite(x.dual_clip), -x.dual_clip.nan_to_num(posinf=0.0) * advantage_N, torch.inf)
    clipped_loss_N = -torch.minimum(plain_N, clip_N)
    clipped_loss_N = torch.where(advantage_N < 0, torch.minimum(clipped_loss_N, ceiling_N), clipped_loss_N)
    detached_N = x.detached > 0
    loss_N = torch.where(detached_N, -bounded_N.detach() * advantage_N * logprobs_N, clipped_loss_N)
    return loss_N, torch.where(detached_N, ratio_N != bounded_N, clip_N < plain_N)


def _importance(old_N: Tensor, trained_N: Tensor, x: LossInputs, cap: float | None) -> tuple[Tensor, Tensor]:
    """Truncated importance weights, and where they were cut."""
    if cap is None:
        return torch.ones_like(old_N), torch.zeros_like(trained_N)
    known_N = trained_N & ~torch.isnan(x.rollout_logprobs)
    difference_N = torch.where(known_N, old_N - x.rollout_logprobs, torch.zeros_like(old_N))
    weight_N = torch.exp(difference_N.clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT))
    return weight_N.clamp(max=cap), weight_N > cap
