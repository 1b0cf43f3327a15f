"""What the templates show of results, comparisons and human-likeness: plain values with positions in per cent."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from eval.compare import Comparison, TaskComparison
from eval.human_likeness.report import HumanLikenessResult, Measure
from eval.report.charts import Radar, number, radar
from eval.results import PartResult, Results, TaskResult
from eval.soul_index import AXES
from eval.stats import Estimate


@dataclass(frozen=True)
class Mark:
    """A point with its interval on a track; positions in per cent of the track."""

    colour: int
    run: str
    at: float
    low: float
    high: float
    text: str


@dataclass(frozen=True)
class IntervalRow:
    """One line of an interval plot: a label and the marks of all evaluations."""

    label: str
    detail: str
    marks: tuple[Mark, ...]
    baseline: Mark | None = None
    indent: bool = False


@dataclass(frozen=True)
class TaskPanel:
    """One task, all evaluations."""

    task: TaskResult
    results: tuple[tuple[str, TaskResult], ...]
    rows: tuple[IntervalRow, ...]
    unscored: str


@dataclass(frozen=True)
class EvaluationView:
    """Evaluations side by side: radar, overview and a panel per task."""

    runs: tuple[Results, ...]
    radar: Radar | None
    axes: tuple[str, ...]
    overview: tuple[IntervalRow, ...]
    panels: tuple[TaskPanel, ...]


def percent(value: float, low: float = 0.0, high: float = 1.0) -> float:
    """Position of a value on a track, in per cent, clipped."""
    return round(100 * min(1.0, max(0.0, (value - low) / (high - low))), 2)


def mark(colour: int, run: str, e: Estimate, low: float = 0.0, high: float = 1.0) -> Mark:
    return Mark(
        colour,
        run,
        percent(e.value, low, high),
        percent(e.low, low, high),
        percent(e.high, low, high),
        estimate_text(e),
    )


def estimate_text(e: Estimate | None) -> str:
    """0.625 [0.551, 0.693]."""
    return f"{e.value:.3f} [{e.low:.3f}, {e.high:.3f}]" if e else "no scored episode"


def short_id(row: str) -> str:
    """A row id for narrow places: a leading content hash is cut to eight characters."""
    return re.sub(r"^([0-9a-f]{8})[0-9a-f]{8,}", r"\1…", row)


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def cell_text(value: object) -> str:
    """A table cell."""
    if value is None:
        return "–"
    if isinstance(value, Estimate):
        return estimate_text(value)
    if isinstance(value, float):
        return number(value)
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def evaluation_view(results: Sequence[Results]) -> EvaluationView:
    """Evaluations side by side; tasks in the order of first mention."""
    runs = tuple(results)
    names = list(dict.fromkeys(t.task for r in runs for t in r.tasks))
    panels = tuple(_panel(runs, name) for name in names)
    overview = []
    if any(r.index for r in runs) and len(panels) > 1:
        marks = tuple(mark(i, r.name, r.index.estimate) for i, r in enumerate(runs) if r.index)
        complete = all(r.index.complete for r in runs if r.index)
        overview.append(IntervalRow("SOUL-Index" if complete else "SOUL-Index, partial", "mean over axes", marks))
    for panel in panels:
        overview.append(panel.rows[0])
    present = [a for a in AXES if any(r.index and any(x.axis == a for x in r.index.axes) for r in runs)]
    shapes = [(r.name, {x.axis: x.estimate for x in r.index.axes} if r.index else {}) for r in runs]
    return EvaluationView(runs, radar(present, shapes), tuple(present), tuple(overview), panels)


def _panel(runs: Sequence[Results], name: str) -> TaskPanel:
    found = [(i, r.name, t) for i, r in enumerate(runs) for t in r.tasks if t.task == name]
    first = found[0][2]
    rows = [
        IntervalRow(
            first.task,
            f"{first.axis} · {first.metric} {'↑' if first.direction == 'higher' else '↓'}",
            tuple(mark(i, run, t.estimate) for i, run, t in found if t.estimate),
            _baseline([t.baseline for _, _, t in found]),
        )
    ]
    for part in dict.fromkeys(p.name for _, _, t in found for p in t.parts):
        members = [(i, run, p) for i, run, t in found for p in t.parts if p.name == part]
        rows.append(_part_row(part, members))
    reasons = [f"{run}: {count} {reason}" for _, run, t in found for reason, count in sorted(t.unscored.items())]
    return TaskPanel(first, tuple((run, t) for _, run, t in found), tuple(rows), "; ".join(reasons))


def _part_row(name: str, members: Sequence[tuple[int, str, PartResult]]) -> IntervalRow:
    values = [v for _, _, p in members for v in (p.estimate.low, p.estimate.high)]
    low, high = min(0.0, *values), max(1.0, *values)
    marks = tuple(mark(i, run, p.estimate, low, high) for i, run, p in members)
    detail = f"n = {members[0][2].estimate.n}"
    return IntervalRow(name, detail, marks, _baseline([p.baseline for _, _, p in members]), indent=True)


def _baseline(estimates: Sequence[Estimate | None]) -> Mark | None:
    known = [e for e in estimates if e]
    return mark(-1, "answer-frequency baseline", known[0]) if known else None


@dataclass(frozen=True)
class ComparisonRow:
    """One task of a comparison."""

    task: TaskComparison
    mark: Mark
    sentence: str


@dataclass(frozen=True)
class ComparisonView:
    """All tasks of a comparison on one track."""

    rows: tuple[ComparisonRow, ...]
    index: Mark | None
    reach: float
    """The track spans −reach to +reach."""
    sentence: str


def comparison_view(comparison: Comparison) -> ComparisonView:
    """Differences on one symmetric track."""
    estimates = [t.difference for t in comparison.tasks] + ([comparison.index] if comparison.index else [])
    reach = max(0.05, *(abs(v) for e in estimates for v in (e.low, e.high)))
    rows = tuple(
        ComparisonRow(t, mark(_tone(t), comparison.after, t.difference, -reach, reach), _sentence(t))
        for t in comparison.tasks
    )
    index = mark(0, comparison.after, comparison.index, -reach, reach) if comparison.index else None
    return ComparisonView(rows, index, reach, _overall(comparison))


def _tone(t: TaskComparison) -> int:
    return {"better": 2, "worse": 5, "inconclusive": -1}[t.verdict]


def _sentence(t: TaskComparison) -> str:
    if t.verdict != "inconclusive":
        return f"{t.verdict}: Holm-corrected p = {t.p_holm:.3g}"
    reach = f"{t.difference.n} pairs can show {t.detectable:.3f} or more"
    text = f"inconclusive (p = {t.p:.2g}, Holm {t.p_holm:.2g}): {reach}"
    return text + (f"; this difference would take about {t.needed:,} pairs" if t.needed else "")


def _overall(c: Comparison) -> str:
    counts = {v: sum(t.verdict == v for t in c.tasks) for v in ("better", "worse", "inconclusive")}
    tasks = f"{len(c.tasks)} task{'s' if len(c.tasks) != 1 else ''}"
    return (
        f"{c.after} against {c.before}: better on {counts['better']}, worse on {counts['worse']}, inconclusive on "
        f"{counts['inconclusive']} of {tasks}. Same rows on both sides, whole clusters "
        "resampled, p-values corrected over all tasks (Holm)."
    )


@dataclass(frozen=True)
class MeasureRow:
    """One human-likeness measure beside its human–human floor."""

    measure: Measure
    mark: Mark
    floor: float
    floor_high: float
    """Positions in per cent of the track."""


@dataclass(frozen=True)
class MeasureGroup:
    """Measures under one heading."""

    name: str
    rows: tuple[MeasureRow, ...]


def likeness_view(result: HumanLikenessResult) -> tuple[MeasureGroup, ...]:
    """Measures by group; every row has its own scale from 0 to beyond its largest value."""
    groups: dict[str, list[MeasureRow]] = {}
    for m in result.measures:
        classifier = "AUROC" in m.unit
        low = 0.5 if classifier else 0.0
        high = 1.0 if classifier else max(m.distance.high, m.floor_high, 1e-9) * 1.08
        tone = 2 if m.within_floor else 5
        row = MeasureRow(
            m,
            mark(tone, result.name, m.distance, low, high),
            percent(m.floor, low, high),
            percent(m.floor_high, low, high),
        )
        groups.setdefault(m.group, []).append(row)
    return tuple(MeasureGroup(name, tuple(rows)) for name, rows in groups.items())
