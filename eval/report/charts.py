"""Geometry of the charts: where lines, ticks and labels go. The templates draw it; no markup here."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from eval.stats import Estimate

if TYPE_CHECKING:
    from eval.report.sections import Chart, Series

WIDTH, HEIGHT = 440, 220
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 12, 34
MAX_POINTS = 400

Scale = Callable[[float], float]


@dataclass(frozen=True)
class Tick:
    """A position on an axis with its label."""

    at: float
    label: str


@dataclass(frozen=True)
class Line:
    """One drawn series; `path` and `band` are SVG path data."""

    name: str
    colour: int
    """Index into the page's palette."""
    path: str
    band: str
    last: str
    """The last value as text, for the legend."""


@dataclass(frozen=True)
class LinePlot:
    """A line chart in a WIDTH × HEIGHT box. `points` feeds the hover readout: per series [[px, py, x, y], …]."""

    lines: tuple[Line, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    reference: Tick | None
    points: list[list[list[float]]]


def line_plot(chart: Chart) -> LinePlot | None:
    """Lay out a chart; None when it has no finite point."""
    series = [_thin(_finite(s, log=chart.log_y)) for s in chart.series]
    drawn = [s for s in series if len(s.x)]
    if not drawn:
        return None
    ys = [v for s in drawn for v in (*s.y, *(s.low or ()), *(s.high or ()))]
    if chart.reference is not None:
        ys.append(chart.reference[0])
    xs = [v for s in drawn for v in s.x]
    x_low, x_high = _padded(min(xs), max(xs), 0.0)
    to_y = (lambda v: math.log10(v)) if chart.log_y else (lambda v: v)
    y_low, y_high = _padded(to_y(min(ys)), to_y(max(ys)), 0.06)

    def px(x: float) -> float:
        return round(LEFT + (x - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT), 1)

    def py(y: float) -> float:
        return round(HEIGHT - BOTTOM - (to_y(y) - y_low) / (y_high - y_low) * (HEIGHT - TOP - BOTTOM), 1)

    lines, points = [], []
    for colour, s in enumerate(series):
        if not len(s.x):
            continue
        at = [(px(x), py(y)) for x, y in zip(s.x, s.y, strict=True)]
        lines.append(Line(s.name, colour, _path(at), _band(s, px, py), number(s.y[-1])))
        points.append([[a, b, x, y] for (a, b), x, y in zip(at, s.x, s.y, strict=True)])
    reference = Tick(py(chart.reference[0]), chart.reference[1]) if chart.reference else None
    y_values = log_ticks(10**y_low, 10**y_high) if chart.log_y else nice_ticks(y_low, y_high, 4)
    return LinePlot(
        lines=tuple(lines),
        x_ticks=tuple(Tick(px(v), number(v)) for v in nice_ticks(x_low, x_high, 5)),
        y_ticks=tuple(Tick(py(v), number(v)) for v in y_values),
        reference=reference,
        points=points,
    )


def _finite(s: Series, *, log: bool) -> Series:
    keep = [
        i
        for i, (x, y) in enumerate(zip(s.x, s.y, strict=True))
        if math.isfinite(x) and math.isfinite(y) and (y > 0 or not log)
    ]
    low = [s.low[i] for i in keep] if s.low is not None else None
    high = [s.high[i] for i in keep] if s.high is not None else None
    return type(s)(s.name, [s.x[i] for i in keep], [s.y[i] for i in keep], low, high)


def _thin(s: Series) -> Series:
    """At most MAX_POINTS points: bucket means, with the band from each bucket's extremes."""
    if len(s.x) <= MAX_POINTS:
        return s
    edges = np.linspace(0, len(s.x), MAX_POINTS + 1).astype(int)
    spans = [slice(a, b) for a, b in pairwise(edges)]
    low, high = s.low or s.y, s.high or s.y
    return type(s)(
        s.name,
        [float(np.mean(s.x[k])) for k in spans],
        [float(np.mean(s.y[k])) for k in spans],
        [min(low[k]) for k in spans],
        [max(high[k]) for k in spans],
    )


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:g},{y:g}" for x, y in points)


def _band(s: Series, px: Scale, py: Scale) -> str:
    if s.low is None or s.high is None:
        return ""
    upper = [(px(x), py(y)) for x, y in zip(s.x, s.high, strict=True)]
    lower = [(px(x), py(y)) for x, y in zip(s.x, s.low, strict=True)]
    return _path([*upper, *reversed(lower)]) + "Z"


def _padded(low: float, high: float, share: float) -> tuple[float, float]:
    if low == high:
        pad = abs(low) * 0.1 or 1.0
        return low - pad, high + pad
    pad = (high - low) * share
    return low - pad, high + pad


def nice_ticks(low: float, high: float, count: int) -> list[float]:
    """About `count` round values (1, 2 or 5 times a power of ten) inside [low, high]."""
    raw = (high - low) / max(1, count)
    power = 10.0 ** math.floor(math.log10(raw))
    step = min((m * power for m in (1, 2, 5, 10)), key=lambda s: abs(s - raw))
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(k * step, 12) for k in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten inside [low, high]; only the powers when there are many."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1, 2, 5) if len(decades) <= 4 else (1,)
    return [m * 10.0**k for k in decades for m in steps if low <= m * 10.0**k <= high]


def number(value: float) -> str:
    """A short form: 1,200 · 0.034 · 2.1e-05."""
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 1e6 or size < 1e-3:
        return f"{value:.2g}"
    if size >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}"


RADAR = 300
_RADIUS = 104


@dataclass(frozen=True)
class RadarSpoke:
    """The end of one axis and the place of its label; `anchor` is SVG's text-anchor."""

    label: str
    x: float
    y: float
    label_x: float
    label_y: float
    anchor: str


@dataclass(frozen=True)
class RadarShape:
    """One evaluation on the radar; `path` and `band` are SVG path data."""

    name: str
    colour: int
    path: str
    band: str
    """Ring between the lower and the upper ends of the intervals (even-odd fill)."""


@dataclass(frozen=True)
class Radar:
    """A radar chart: `rings` are the paths of its grid."""

    spokes: tuple[RadarSpoke, ...]
    rings: tuple[str, ...]
    shapes: tuple[RadarShape, ...]


def radar(axes: Sequence[str], runs: Sequence[tuple[str, Mapping[str, Estimate]]]) -> Radar | None:
    """A radar over axes whose values lie in [0, 1]; None below three axes, where it would show a line."""
    if len(axes) < 3:
        return None

    def at(i: int, value: float) -> tuple[float, float]:
        angle = 2 * math.pi * i / len(axes) - math.pi / 2
        r = _RADIUS * value
        return round(RADAR / 2 + r * math.cos(angle), 1), round(RADAR / 2 + r * math.sin(angle), 1)

    def ring(values: Sequence[float]) -> str:
        return _path([at(i, v) for i, v in enumerate(values)]) + "Z"

    spokes = []
    for i, axis in enumerate(axes):
        (x, y), (lx, ly) = at(i, 1.0), at(i, 1.18)
        side = lx - RADAR / 2
        anchor = "middle" if abs(side) < 8 else ("start" if side > 0 else "end")
        spokes.append(RadarSpoke(axis, x, y, lx, ly + 4, anchor))
    shapes = []
    for colour, (name, values) in enumerate(runs):
        if any(axis not in values for axis in axes):
            continue
        low, high = ring([values[a].low for a in axes]), ring([values[a].high for a in axes])
        shapes.append(RadarShape(name, colour, ring([values[a].value for a in axes]), f"{high} {low}"))
    return Radar(tuple(spokes), tuple(ring([level] * len(axes)) for level in (0.25, 0.5, 0.75, 1.0)), tuple(shapes))
