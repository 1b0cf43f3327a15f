"""The user-simulation index of tau-USI. Pure.

Per feature, Dice similarity 2·min(m, h)/(m + h) of the means over conversations, 1 when both are 0; a dimension is
the mean over its features, in per cent, averaged over batches of human annotation. Calibration error: tasks are
binned by difficulty (pooled success of published simulators, cut at .2 .4 .6 .8), ECE = Σ n_b/N · |success with the
simulator − with people|. USI = mean(D1, D2, D3, D4, [survey agreement,] 100·(1 − ECE)).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from common.errors import UsageError
from eval.user_simulation.features import DIMENSIONS, Features, Turn, features

CUTS = (0.2, 0.4, 0.6, 0.8)


@dataclass(frozen=True)
class Conversation:
    """One customer with one agent on one task."""

    task: str
    turns: tuple[Turn, ...]
    success: float | None = None
    """Did the agent solve the task (reward)? None: unknown."""
    survey: Mapping[str, float] | None = None
    """Ordinal answers of the closing survey, normalised to [0, 1]."""


@dataclass(frozen=True)
class Index:
    """All in per cent but `ece`."""

    dimensions: Mapping[str, float]
    ece: float | None
    survey: float | None
    usi: float
    conversations: int


def mean_features(conversations: Sequence[Conversation]) -> dict[str, float]:
    """Means over conversations that have customer turns."""
    rows = [features(c.turns) for c in conversations if c.turns]
    if not rows:
        raise UsageError("no conversation has a customer turn", where="tau-USI", fix="evaluate tau_usi first")
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def dice(a: float, b: float) -> float:
    """2·min/(sum) of two non-negative numbers; 1 for two zeros."""
    return 2 * min(a, b) / (a + b) if a + b > 0 else 1.0


def dimensions(model: Features, human: Features) -> dict[str, float]:
    """D1 to D4 in per cent."""
    return {
        name: 100 * float(np.mean([dice(model[f], human[f]) for f in members]))
        for name, members in DIMENSIONS.items()
    }


def calibration_error(
    model: Sequence[Conversation], human: Sequence[Conversation], difficulty: Mapping[str, float]
) -> float | None:
    """ECE over the tasks that both sides and `difficulty` know; None when there are none."""
    left, right = _success(model), _success(human)
    shared = sorted(set(left) & set(right) & set(difficulty))
    if not shared:
        return None
    bins = np.digitize([difficulty[t] for t in shared], CUTS)
    error = 0.0
    for b in set(bins.tolist()):
        members = [t for t, at in zip(shared, bins, strict=True) if at == b]
        gap = np.mean([left[t] for t in members]) - np.mean([right[t] for t in members])
        error += len(members) / len(shared) * abs(float(gap))
    return error


def _success(conversations: Sequence[Conversation]) -> dict[str, float]:
    per: dict[str, list[float]] = {}
    for c in conversations:
        if c.success is not None:
            per.setdefault(c.task, []).append(c.success)
    return {task: float(np.mean(values)) for task, values in per.items()}


def survey_agreement(model: Sequence[Conversation], human: Sequence[Conversation]) -> float | None:
    """100·(1 − mean |Δ|) over questions and tasks that both answered; missing answers are left out, not made up."""
    people = {c.task: c.survey for c in human if c.survey}
    gaps = [
        abs(value - people[c.task][name])
        for c in model
        if c.survey and c.task in people
        for name, value in c.survey.items()
        if name in people[c.task]
    ]
    return 100 * (1 - float(np.mean(gaps))) if gaps else None


def index(
    model: Sequence[Conversation],
    human_batches: Sequence[Sequence[Conversation]],
    difficulty: Mapping[str, float] | None = None,
) -> Index:
    """USI against batches of human conversations, averaged over batches."""
    if not human_batches:
        raise UsageError("no human conversations to compare with", where="tau-USI", fix="give at least one batch")
    own = mean_features(model)
    per = [dimensions(own, mean_features(batch)) for batch in human_batches]
    found = {name: float(np.mean([one[name] for one in per])) for name in DIMENSIONS}
    errors = [calibration_error(model, batch, difficulty or {}) for batch in human_batches]
    agreements = [survey_agreement(model, batch) for batch in human_batches]
    ece, survey = _mean(errors), _mean(agreements)
    terms = [*found.values()]
    terms += [survey] if survey is not None else []
    terms += [100 * (1 - ece)] if ece is not None else []
    return Index(found, ece, survey, float(np.mean(terms)), sum(bool(c.turns) for c in model))


def _mean(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return float(np.mean(known)) if known else None
