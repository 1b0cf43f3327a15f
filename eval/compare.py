"""Paired comparison of evaluations: the same rows, clusters kept together, corrected for many tasks.

Two runs are compared on the episodes that both have a score for (same task version, row content, epoch and scorer
profile). The difference is always second minus first. Runs that scored the same tasks under different versions or
profiles are refused, because their difference would measure the scorer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from common.config import Config
from common.errors import UsageError
from eval.results import Direction, Item, Results, TaskResult
from eval.soul_index import AXES, axis_of, family
from eval.stats import (
    F64,
    Clustered,
    Estimate,
    JointBootstrap,
    design_effect,
    holm,
    mcnemar_exact,
    minimum_detectable,
    paired_sample_size,
    sign_flip_p,
)

SCHEMA_VERSION = 1
DRAWS = 10_000

Verdict = Literal["better", "worse", "inconclusive"]


class Flip(Config):
    """A row whose outcome changed sides of 0.5."""

    row: str
    epoch: int
    before: float
    after: float
    key_before: str
    key_after: str


class TaskComparison(Config):
    """One task of two evaluations: the paired difference, its tests, and what stayed without a partner."""

    task: str
    axis: str
    metric: str
    direction: Direction
    profile: str
    before: float
    after: float
    difference: Estimate
    """After minus before on paired episodes; n counts pairs."""
    p: float
    """Two-sided sign-flip permutation over clusters."""
    p_holm: float
    mcnemar_p: float | None
    """Exact McNemar, only where all scores are 0 or 1 and every cluster is one episode."""
    verdict: Verdict
    only_before: int
    """Pairs right before and wrong after."""
    only_after: int
    unpaired: int
    """Episodes without a scored partner in the other run: excluded, counted."""
    detectable: float
    """Smallest true difference that this many pairs find with 80 % power."""
    needed: int | None
    """Pairs needed to find the observed difference with 80 % power; None when conclusive or zero."""
    flips: tuple[Flip, ...] = ()


class Comparison(Config):
    """`after` against `before`."""

    schema_version: int = SCHEMA_VERSION
    before: str
    after: str
    level: float
    tasks: tuple[TaskComparison, ...]
    index: Estimate | None = None
    """Difference of SOUL-Index (mean over axes) on the paired episodes."""

    def summary(self, *, flips: int = 0) -> str:
        """One line per task for the terminal, with the first `flips` rows that changed sides."""
        lines = []
        for t in self.tasks:
            lines.append(_line(t))
            lines += [
                f"    {f.before:.3g} → {f.after:.3g}  {f.row}{f' epoch {f.epoch}' * bool(f.epoch)}"
                for f in t.flips[:flips]
            ]
        if self.index is not None and len(self.tasks) > 1:
            i = self.index
            lines.append(f"SOUL-Index difference on these pairs: {i.value:+.3f} [{i.low:+.3f}, {i.high:+.3f}]")
        return "\n".join(lines)


def compare(
    before: Results, after: Results, *, seed: int = 0, level: float = 0.95, draws: int = DRAWS, max_flips: int = 200
) -> Comparison:
    """Compare two evaluations. Raises UsageError when they share no comparable task."""
    return compare_all([before, after], seed=seed, level=level, draws=draws, max_flips=max_flips)[0]


def compare_all(
    runs: Sequence[Results], *, seed: int = 0, level: float = 0.95, draws: int = DRAWS, max_flips: int = 200
) -> tuple[Comparison, ...]:
    """Compare each later run with the first; Holm's correction covers every task of every pair."""
    if len(runs) < 2:
        raise UsageError("a comparison needs two runs", fix="osim eval compare RUN_A RUN_B")
    bootstrap = JointBootstrap(seed, draws=draws, level=level)
    first = runs[0]
    pairs = [(other, _compare_tasks(first, other, bootstrap, max_flips)) for other in runs[1:]]
    raw = {f"{i}/{c.task}": c.p for i, (_, tasks) in enumerate(pairs) for c in tasks}
    adjusted = holm(raw)
    out = []
    for i, (other, tasks) in enumerate(pairs):
        judged = tuple(_judge(c, adjusted[f"{i}/{c.task}"], 1 - level) for c in tasks)
        index = _index_difference(first, other, [c.task for c in tasks], bootstrap)
        out.append(Comparison(before=first.name, after=other.name, level=level, tasks=judged, index=index))
    return tuple(out)


Pair = tuple[Item, Item]


def paired_items(before: TaskResult, after: TaskResult) -> list[Pair]:
    """Scored episodes of both that asked the same thing, in a stable order."""
    right = {(i.content, i.epoch): i for i in after.items if i.value is not None}
    pairs = [
        (left, right[left.content, left.epoch])
        for left in before.items
        if left.value is not None and (left.content, left.epoch) in right
    ]
    return sorted(pairs, key=lambda pair: (pair[0].cluster, pair[0].row, pair[0].epoch))


def _compare_tasks(
    before: Results, after: Results, bootstrap: JointBootstrap, max_flips: int
) -> list[TaskComparison]:
    names = [t.task for t in before.tasks if any(t.task == other.task for other in after.tasks)]
    if not names:
        raise UsageError(
            "the two evaluations share no task",
            where=f"{before.name} / {after.name}",
            fix="evaluate both on the same suite",
        )
    found = []
    for name in names:
        a, b = before.task(name), after.task(name)
        if (a.version, a.profile) != (b.version, b.profile):
            raise UsageError(
                f"{name}: version {a.version} profile {a.profile} against version {b.version} profile {b.profile}",
                where=f"{before.name} / {after.name}",
                fix="rescore one of them: osim eval rescore RUN --profile PROFILE",
            )
        pairs = paired_items(a, b)
        if pairs:
            found.append(_compare_task(a, b, pairs, bootstrap, max_flips))
    if not found:
        raise UsageError(
            "no row was scored in both evaluations",
            where=f"{before.name} / {after.name}",
            fix="evaluate both with the same rows (limit, seed and data)",
        )
    return found


def _compare_task(
    a: TaskResult, b: TaskResult, pairs: Sequence[Pair], bootstrap: JointBootstrap, max_flips: int
) -> TaskComparison:
    left = np.array([x.value for x, _ in pairs], dtype=np.float64)
    right = np.array([y.value for _, y in pairs], dtype=np.float64)
    differences = right - left
    statistic = Clustered.of(differences.tolist(), [x.cluster for x, _ in pairs])
    lost, won = int(((left > 0.5) & (right <= 0.5)).sum()), int(((left <= 0.5) & (right > 0.5)).sum())
    binary = bool(np.isin(left, (0, 1)).all() and np.isin(right, (0, 1)).all())
    deviation = float(np.std(differences, ddof=1)) if len(pairs) > 1 else 0.0
    effect = design_effect(differences, statistic)
    scored = sum(i.value is not None for i in a.items) + sum(i.value is not None for i in b.items)
    return TaskComparison(
        task=a.task,
        axis=a.axis,
        metric=a.metric,
        direction=a.direction,
        profile=a.profile,
        before=float(left.mean()),
        after=float(right.mean()),
        difference=bootstrap.difference(f"pair/{a.task}", statistic),
        p=sign_flip_p(statistic.sums, seed=bootstrap.seed, flips=bootstrap.draws),
        p_holm=1.0,
        mcnemar_p=mcnemar_exact(lost, won) if binary and statistic.clusters == statistic.n else None,
        verdict="inconclusive",
        only_before=lost,
        only_after=won,
        unpaired=scored - 2 * len(pairs),
        detectable=_detectable(deviation, effect, len(pairs)),
        needed=paired_sample_size(statistic.mean, deviation, design_effect=effect),
        flips=_flips(pairs, max_flips),
    )


def _detectable(deviation: float, effect: float, pairs: int) -> float:
    # Without any disagreement seen, up to 3/n of the pairs may still disagree (rule of three).
    deviation = deviation or float(np.sqrt(3 / pairs))
    return min(1.0, minimum_detectable(deviation * float(np.sqrt(effect / pairs))))


def _flips(pairs: Sequence[Pair], limit: int) -> tuple[Flip, ...]:
    changed = [
        Flip(row=x.row, epoch=x.epoch, before=x.value, after=y.value, key_before=x.key, key_after=y.key)
        for x, y in pairs
        if x.value is not None and y.value is not None and (x.value > 0.5) != (y.value > 0.5)
    ]
    return tuple(changed[:limit])


def _judge(task: TaskComparison, p_holm: float, alpha: float) -> TaskComparison:
    value = task.difference.value
    verdict: Verdict = "inconclusive"
    if p_holm <= alpha and value != 0:
        verdict = "better" if (value > 0) == (task.direction == "higher") else "worse"
    needed = task.needed if verdict == "inconclusive" else None
    return task.model_copy(update={"p_holm": p_holm, "verdict": verdict, "needed": needed})


def _index_difference(
    before: Results, after: Results, names: Sequence[str], bootstrap: JointBootstrap
) -> Estimate | None:
    values: dict[str, dict[str, list[float]]] = {}
    draws: dict[str, dict[str, list[F64]]] = {}
    fewest, n, clusters = math.inf, 0, 0
    for name in names:
        axis = axis_of(name)
        if axis is None:
            continue
        a, b = before.task(name), after.task(name)
        sign = -1.0 if a.direction == "lower" else 1.0
        pairs = paired_items(a, b)
        gain = [sign * (y.value - x.value) for x, y in pairs if x.value is not None and y.value is not None]
        statistic = Clustered.of(gain, [x.cluster for x, _ in pairs])
        values.setdefault(axis, {}).setdefault(family(name), []).append(statistic.mean)
        resampled = bootstrap.means(f"pair/{name}", [statistic])[:, 0]
        draws.setdefault(axis, {}).setdefault(family(name), []).append(resampled)
        fewest, n, clusters = (
            min(fewest, statistic.effective_clusters),
            n + statistic.n,
            clusters + statistic.clusters,
        )
    if not values:
        return None
    present = [axis for axis in AXES if axis in values]
    value = float(np.mean([_nested(values[axis]) for axis in present]))
    resampled = np.mean([_nested(draws[axis]) for axis in present], axis=0)
    low, high = bootstrap.interval(value, resampled, clusters=fewest)
    return Estimate(value, max(-1.0, low), min(1.0, high), n, clusters)


def _nested(families: Mapping[str, Sequence[float]] | Mapping[str, Sequence[F64]]) -> F64:
    """Mean over families of the mean over their members."""
    return np.asarray(np.mean([np.mean(members, axis=0) for members in families.values()], axis=0))


def _line(t: TaskComparison) -> str:
    d = t.difference
    text = (
        f"{t.task}: {t.before:.3f} → {t.after:.3f}, difference {d.value:+.3f} [{d.low:+.3f}, {d.high:+.3f}] "
        f"on {d.n} pairs in {d.clusters} clusters, p = {t.p:.3g} (Holm {t.p_holm:.3g}): {t.verdict}; "
        f"{t.only_after} won, {t.only_before} lost"
    )
    if t.verdict == "inconclusive":
        text += f"; differences under {t.detectable:.3f} are out of reach"
        text += f", {t.needed} pairs would settle this one" if t.needed else ""
    return text
