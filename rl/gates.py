"""Bounds that a run holds itself to: engine and trainer agree on log-probs, and not too many episodes fail.

Checked on every rank from the same numbers, so all ranks stop together (exit 3). Pure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from common.errors import GateError
from envs.types import Unscored
from rl.config import GateConfig
from rl.samples import TrainSample


@dataclass(frozen=True)
class LogprobGap:
    """|engine - trainer| over sampled tokens in the context the engine saw, under the weights that sampled them."""

    tokens: int
    max: float
    mean: float
    kl: float
    """KL(engine || trainer) per token, k3 estimator."""


def measure_gap(samples: Sequence[TrainSample]) -> LogprobGap:
    """Over prepared samples."""
    pairs = [
        (s.rollout_logprobs[s.trainable], s.old_logprobs[s.trainable])
        for s in samples
        if s.rollout_logprobs is not None and s.old_logprobs is not None
    ]
    if not pairs:
        return LogprobGap(0, 0.0, 0.0, 0.0)
    engine, trainer = (np.concatenate(side).astype(np.float64) for side in zip(*pairs, strict=True))
    gap = trainer - engine
    kl = np.exp(np.clip(gap, -20, 20)) - 1 - gap
    return LogprobGap(len(gap), float(np.abs(gap).max()), float(np.abs(gap).mean()), float(kl.mean()))


def check_gap(gap: LogprobGap, gates: GateConfig, *, where: str) -> None:
    """Raise GateError when a bound does not hold, or NaN took its place."""
    for name, value, bound in (
        ("largest", gap.max, gates.max_logprob_gap),
        ("mean", gap.mean, gates.mean_logprob_gap),
    ):
        if bound is not None and not value <= bound:
            raise GateError(
                f"{name} log-prob difference between engine and trainer is {value:.3g} over {gap.tokens} tokens, "
                f"the bound is {bound:.3g}",
                where=where,
                fix="compare precisions and weights of both sides; set gates.max_logprob_gap to what this precision "
                "can hold (bf16: null, with gates.mean_logprob_gap: 0.03)",
            )


def check_staleness(ages: Sequence[int], bound: int, *, where: str) -> None:
    """Raise GateError when a sample was drawn by weights more than `bound` steps older than those it would train."""
    if ages and max(ages) > bound:
        old = sum(a > bound for a in ages)
        raise GateError(
            f"{old} of {len(ages)} samples are up to {max(ages)} steps old, the bound is {bound}",
            where=where,
            fix="raise max_staleness to what this run was started with, or start a new run folder",
        )


def check_failures(failures: Sequence[Unscored], played: int, gates: GateConfig, *, where: str) -> None:
    """Raise GateError when more than the configured share of a step's episodes has no score."""
    share = len(failures) / played if played else 0.0
    if share <= gates.max_failure_share:
        return
    reasons = Counter(f.reason.value for f in failures)
    listing = ", ".join(f"{n} {reason}" for reason, n in reasons.most_common())
    example = next(f.detail for f in failures if f.reason.value == reasons.most_common(1)[0][0])
    raise GateError(
        f"{len(failures)} of {played} episodes have no score ({listing}), more than "
        f"{gates.max_failure_share:.0%}; for example: {example}",
        where=where,
        fix="repair what failed and run again: only these episodes are played again",
    )
