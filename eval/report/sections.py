"""What a report is composed of. Each section belongs to a tab; sections keep the order they are given in.

Plain data: rendering is in write.py and the templates. Texts are escaped by the template engine, whoever wrote them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from eval.compare import Comparison
from eval.human_likeness.report import HumanLikenessResult
from eval.report.transcripts import EpisodeRecord, TokenPieces
from eval.results import Results
from eval.stats import Estimate

Tone = Literal["plain", "good", "bad"]
Cell = str | int | float | Estimate | None


@dataclass(frozen=True)
class Stat:
    """A headline figure: "Held-out accuracy", "62.5 %", "95 % interval 55.1 to 69.3, n = 200"."""

    label: str
    value: str
    detail: str = ""
    tone: Tone = "plain"


@dataclass(frozen=True)
class Summary:
    """Headline figures with an optional paragraph."""

    title: str
    stats: Sequence[Stat] = ()
    text: str = ""
    tab: str = "Summary"


@dataclass(frozen=True)
class Prose:
    """Paragraphs; a blank line separates two."""

    title: str
    text: str
    tab: str = "Summary"


@dataclass(frozen=True)
class Table:
    """A plain table. Numbers are right-aligned; an Estimate is shown with its interval."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str = ""
    tab: str = "Summary"


@dataclass(frozen=True)
class Facts:
    """Names and values: provenance, settings."""

    title: str
    facts: Mapping[str, str]
    tab: str = "Summary"


@dataclass(frozen=True)
class Series:
    """One line: y over x, optionally with a band. Points that are not finite are left out."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None


@dataclass(frozen=True)
class Chart:
    """One line chart. `reference` draws a labelled horizontal line, e.g. an entropy bound or a chance level."""

    title: str
    series: Sequence[Series]
    x_label: str = "step"
    y_label: str = ""
    note: str = ""
    log_y: bool = False
    reference: tuple[float, str] | None = None


@dataclass(frozen=True)
class Curves:
    """Training curves."""

    title: str
    charts: Sequence[Chart]
    text: str = ""
    tab: str = "Training"


@dataclass(frozen=True)
class Evaluations:
    """Results of one or several evaluations side by side: intervals, radar, table, one panel per task."""

    title: str
    results: Sequence[Results]
    tab: str = "Evaluation"


@dataclass(frozen=True)
class Comparisons:
    """Paired comparisons with flips that link to their transcripts."""

    title: str
    comparisons: Sequence[Comparison]
    tab: str = "Comparison"


@dataclass(frozen=True)
class TranscriptRun:
    """The episodes of one evaluation or training phase under one label (the label of its `Results`)."""

    name: str
    episodes: Iterable[EpisodeRecord]
    pieces: TokenPieces | None = None
    """Text of each token id; None leaves the token view out."""


@dataclass(frozen=True)
class Transcripts:
    """Episodes to read, filter and lay side by side. At most one per report."""

    title: str
    runs: Sequence[TranscriptRun]
    tab: str = "Transcripts"


@dataclass(frozen=True)
class HumanLikeness:
    """Distance of generated text from human text, each measure beside its human–human floor."""

    title: str
    result: HumanLikenessResult
    tab: str = "Human-likeness"


Section = Summary | Prose | Table | Facts | Curves | Evaluations | Comparisons | Transcripts | HumanLikeness

_HIDDEN_METRICS = frozenset({"step", "phase", "time"})


def curves_from_metrics(
    title: str,
    lines: Sequence[Mapping[str, Any]],
    *,
    phase: str,
    metrics: Sequence[str] | None = None,
    labels: Mapping[str, str] | None = None,
    tab: str = "Training",
) -> Curves:
    """Curves of one phase of metrics.jsonl, a chart per metric.

    `metrics` chooses and orders them (those absent are left out); None takes all numeric ones of two points or more.
    """
    points: dict[str, tuple[list[float], list[float]]] = {}
    for line in lines:
        if line.get("phase") != phase:
            continue
        for name, value in line.items():
            if name in _HIDDEN_METRICS or isinstance(value, bool) or not isinstance(value, int | float):
                continue
            xs, ys = points.setdefault(name, ([], []))
            xs.append(float(line["step"]))
            ys.append(float(value))
    names = [m for m in metrics if m in points] if metrics is not None else _worth_showing(points)
    charts = [Chart((labels or {}).get(name, name), (Series(name, *points[name]),)) for name in names]
    return Curves(title, charts, tab=tab)


def _worth_showing(points: Mapping[str, tuple[list[float], list[float]]]) -> list[str]:
    return [name for name, (_, ys) in points.items() if sum(map(math.isfinite, ys)) >= 2]


@dataclass(frozen=True)
class Tab:
    """Sections under one heading of the navigation."""

    name: str
    sections: Sequence[Section] = field(default_factory=tuple)

    @property
    def slug(self) -> str:
        return "".join(c if c.isalnum() else "-" for c in self.name.lower())


def tabs_of(sections: Sequence[Section]) -> list[Tab]:
    """Sections grouped by tab, tabs in order of first mention."""
    grouped: dict[str, list[Section]] = {}
    for section in sections:
        grouped.setdefault(section.tab, []).append(section)
    return [Tab(name, tuple(members)) for name, members in grouped.items()]
