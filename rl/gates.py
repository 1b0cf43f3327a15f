"""Bounds that a run holds itself to: engine and trainer agree on log-probs, and not too many episodes fail.

Checked on every rank from the same numbers, so all ranks stop together (exit 3). Pure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from common.errors import GateError
from envs.types import Seat, Unscored
from rl.config import GateConfig
from rl.samples import TrainSample

REPORTED_SAMPLES = 32
"""Samples whose log-probs are kept, token by token, when a run stops for its gap."""


@dataclass(frozen=True)
class WorstToken:
    """The sampled token that engine and trainer differ most about."""

    index: int
    """Of its sample among those that were compared: what one packed forward pass spoils are neighbours."""
    episode_id: str
    seat: Seat
    version: int
    """Oldest weights that sampled the episode."""
    position: int
    length: int
    """Of the sample, in tokens."""
    token_id: int
    engine: float
    trainer: float

    def __str__(self) -> str:
        return (
            f"sample {self.index}, episode {self.episode_id}, seat {self.seat}, position {self.position} of "
            f"{self.length}, token id {self.token_id}: engine {self.engine:.7f} (weights {self.version}), "
            f"trainer {self.trainer:.7f}"
        )


@dataclass(frozen=True)
class LogprobGap:
    """|engine - trainer| over sampled tokens in the context the engine saw, under the weights that sampled them."""

    tokens: int
    max: float
    mean: float
    kl: float
    """KL(engine || trainer) per token, k3 estimator."""
    worst: WorstToken | None = None

    def metrics(self) -> dict[str, float | int]:
        """The numbers, by name."""
        return {"tokens": self.tokens, "max": self.max, "mean": self.mean, "kl": self.kl}


@dataclass(frozen=True)
class SampleGap:
    """One sample's sampled tokens as both sides see them; lists are parallel."""

    index: int
    episode_id: str
    seat: Seat
    version: int
    positions: list[int]
    token_ids: list[int]
    engine: list[float]
    trainer: list[float]


def largest_gaps(samples: Sequence[TrainSample], count: int = REPORTED_SAMPLES) -> list[SampleGap]:
    """The prepared samples with the largest differences, largest first; not a number comes before all."""
    compared = _compared(samples)
    largest = [float(np.abs(trainer - engine).max(initial=0.0)) for _, engine, trainer in compared]
    order = sorted(range(len(compared)), key=lambda k: -np.nan_to_num(largest[k], nan=np.inf))
    found = []
    for index, engine, trainer in (compared[k] for k in order[:count]):
        s = samples[index]
        found.append(
            SampleGap(
                index=index,
                episode_id=s.episode_id,
                seat=s.seat,
                version=s.version,
                positions=np.flatnonzero(s.trainable).tolist(),
                token_ids=s.ids[s.trainable].tolist(),
                engine=engine.tolist(),
                trainer=trainer.tolist(),
            )
        )
    return found


def measure_gap(samples: Sequence[TrainSample]) -> LogprobGap:
    """Over prepared samples."""
    compared = _compared(samples)
    if not compared:
        return LogprobGap(0, 0.0, 0.0, 0.0)
    gap = np.concatenate([trainer - engine for _, engine, trainer in compared])
    size = np.abs(gap)
    kl = np.exp(np.clip(gap, -20, 20)) - 1 - gap
    at = int(size.argmax())  # the first that is not a number, where there is one
    return LogprobGap(
        len(gap), float(size.max()), float(size.mean()), float(kl.mean()), _token(samples, compared, at)
    )


_Compared = list[tuple[int, npt.NDArray[np.float64], npt.NDArray[np.float64]]]


def _compared(samples: Sequence[TrainSample]) -> _Compared:
    """(index, log-probs of the engine, of the trainer) of sampled tokens, where both are known."""
    return [
        (i, s.rollout_logprobs[s.trainable].astype(np.float64), s.old_logprobs[s.trainable].astype(np.float64))
        for i, s in enumerate(samples)
        if s.rollout_logprobs is not None and s.old_logprobs is not None
    ]


def _token(samples: Sequence[TrainSample], compared: _Compared, at: int) -> WorstToken:
    """The at-th compared token."""
    ends = np.cumsum([len(engine) for _, engine, _ in compared])
    k = int(np.searchsorted(ends, at, side="right"))
    index, engine, trainer = compared[k]
    at -= int(ends[k]) - len(engine)
    sample = samples[index]
    position = int(np.flatnonzero(sample.trainable)[at])
    return WorstToken(
        index=index,
        episode_id=sample.episode_id,
        seat=sample.seat,
        version=sample.version,
        position=position,
        length=len(sample.ids),
        token_id=int(sample.ids[position]),
        engine=float(engine[at]),
        trainer=float(trainer[at]),
    )


def check_gap(
    gap: LogprobGap, gates: GateConfig, *, where: str, evidence: Callable[[WorstToken], str] | None = None
) -> None:
    """Raise GateError when a bound does not hold, or NaN took its place. `evidence` is asked for more to say then."""
    for name, value, bound in (
        ("largest", gap.max, gates.max_logprob_gap),
        ("mean", gap.mean, gates.mean_logprob_gap),
    ):
        if bound is None or value <= bound:
            continue
        more = ""
        if gap.worst is not None:
            more = f"; largest at {gap.worst}{evidence(gap.worst) if evidence else ''}"
        raise GateError(
            f"{name} log-prob difference between engine and trainer is {value:.3g} over {gap.tokens} tokens, "
            f"the bound is {bound:.3g}{more}",
            where=where,
            fix="the side that changed its answer, or both precisions and weights, must be looked at; set "
            "gates.max_logprob_gap to what this precision can hold (bf16: null, with gates.mean_logprob_gap: 0.03)",
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
