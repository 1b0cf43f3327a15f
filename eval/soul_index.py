"""The SOUL-Index: mean over axes of the mean over tasks of normalised task scores.

OdysSim's paper gives no formula and its code none either; the index here is the mean over the five axes (which
the paper's figure implies), its definition is printed with every value, and OdysSim's own aggregate (the mean over
all rows) stands beside it, because the order of models depends on the choice. AlignX's five files count as one
task, as in the paper's 23.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from eval.results import AxisResult, IndexResult, TaskResult
from eval.stats import F64, Clustered, Estimate, JointBootstrap

HUMANUAL = ("chat", "book", "email", "news", "opinion", "politics")
ALIGNX = ("demo", "pair", "ugc", "arbitrary", "history16")

AXES: Mapping[str, tuple[str, ...]] = {
    "CONV": ("userllm", "mirrorbench", "humanual_chat", "sim_doc"),
    "SS": ("sotopia",),
    "COG": ("fantom", "hitom", "paratomi", "social_r1"),
    "ROLE": (
        "coser", "lifechoices", "twinvoice", "behaviorchain", "sim_math", "mistakes", "humanual_email",
        "humanual_news", "humanual_politics",
    ),
    "EVAL": ("alignx", "humanllm", "socsci210", "humanual_book", "humanual_opinion"),
}  # fmt: skip

FAMILIES: Mapping[str, str] = {f"alignx_{part}": "alignx" for part in ALIGNX}
"""Sub-splits that count as one task."""


def family(task: str) -> str:
    """The name that a task counts under in its axis."""
    return FAMILIES.get(task, task)


def axis_of(task: str) -> str | None:
    """The SOUL axis of a task, or None for a task outside SOUL."""
    return next((axis for axis, tasks in AXES.items() if family(task) in tasks), None)


def clustered(task: TaskResult) -> Clustered:
    """A task's scored episodes, normalised so that 1 is best."""
    scored = [i for i in task.items if i.value is not None]
    flip = task.direction == "lower"
    values = [1 - i.value if flip else i.value for i in scored if i.value is not None]
    return Clustered.of(values, [i.cluster for i in scored])


def soul_index(tasks: Sequence[TaskResult], bootstrap: JointBootstrap) -> IndexResult | None:
    """Index, axes and micro-average from one joint resampling; None when no SOUL task has a score."""
    usable = {t.task: t for t in tasks if t.estimate is not None and axis_of(t.task) is not None}
    if not usable:
        return None
    means: dict[str, float] = {}
    draws: dict[str, F64] = {}
    sizes: dict[str, Clustered] = {}
    for name, task in usable.items():
        sizes[name] = clustered(task)
        means[name] = sizes[name].mean
        draws[name] = bootstrap.means(name, [sizes[name]])[:, 0]
    axes, axis_draws = _axes(usable, means, draws, sizes, bootstrap)
    everything = list(usable)
    stacked = np.stack([axis_draws[a.axis] for a in axes])
    value = float(np.mean([a.estimate.value for a in axes]))
    estimate = _bounded(bootstrap, value, stacked.mean(axis=0), [sizes[n] for n in everything])
    weights = np.array([sizes[n].n for n in everything], dtype=np.float64)
    weights /= weights.sum()
    micro_value = float(sum(w * means[n] for w, n in zip(weights, everything, strict=True)))
    micro = _bounded(
        bootstrap, micro_value, weights @ np.stack([draws[n] for n in everything]), [sizes[n] for n in everything]
    )
    missing = missing_tasks(everything)
    return IndexResult(
        estimate=estimate,
        micro=micro,
        axes=tuple(axes),
        definition=definition(axes, missing),
        complete=not missing,
        missing=missing,
    )


def _axes(
    tasks: Mapping[str, TaskResult],
    means: Mapping[str, float],
    draws: Mapping[str, F64],
    sizes: Mapping[str, Clustered],
    bootstrap: JointBootstrap,
) -> tuple[list[AxisResult], dict[str, F64]]:
    axes, axis_draws = [], {}
    for axis in AXES:
        members: dict[str, list[str]] = defaultdict(list)
        for name in tasks:
            if axis_of(name) == axis:
                members[family(name)].append(name)
        if not members:
            continue
        value = float(np.mean([np.mean([means[n] for n in names]) for names in members.values()]))
        resampled = np.mean([np.mean([draws[n] for n in names], axis=0) for names in members.values()], axis=0)
        flat = [n for names in members.values() for n in names]
        estimate = _bounded(bootstrap, value, resampled, [sizes[n] for n in flat])
        axes.append(AxisResult(axis=axis, estimate=estimate, tasks=tuple(flat)))
        axis_draws[axis] = resampled
    return axes, axis_draws


def _bounded(bootstrap: JointBootstrap, value: float, draws: F64, sizes: Sequence[Clustered]) -> Estimate:
    # The smallest task sets the degrees of freedom: conservative, and exact for an axis of one task.
    fewest = min(s.effective_clusters for s in sizes)
    low, high = bootstrap.score_interval(value, draws, clusters=fewest)
    return Estimate(value, low, high, sum(s.n for s in sizes), sum(s.clusters for s in sizes))


def missing_tasks(present: Sequence[str]) -> tuple[str, ...]:
    """SOUL tasks (families) that have no score."""
    have = {family(name) for name in present}
    return tuple(name for names in AXES.values() for name in names if name not in have)


def definition(axes: Sequence[AxisResult], missing: Sequence[str]) -> str:
    """One sentence that says how the number was made."""
    parts = ", ".join(f"{a.axis} ({len({family(t) for t in a.tasks})})" for a in axes)
    text = (
        f"Unweighted mean over {len(axes)} of {len(AXES)} axes of the unweighted mean over their tasks ({parts}); "
        "each task score is its mean over episodes on [0, 1], reversed where lower is better; AlignX files count as "
        "one task. Interval: one cluster bootstrap over all tasks jointly."
    )
    if missing:
        text += f" Partial: {len(missing)} SOUL tasks are missing, so this is not comparable with a full index."
    return text
