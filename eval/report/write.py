"""Render sections to one HTML file.

The page loads nothing from anywhere: a Content-Security-Policy forbids every request and every script but its own
(by hash). All text goes through the template engine's escaping; episodes travel as base64 (transcripts.py). The file
is replaced atomically, so that a reader during a run sees a whole page.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from common.errors import UsageError
from common.files import write_text
from eval.report.charts import BOTTOM, HEIGHT, LEFT, RADAR, RIGHT, TOP, WIDTH, line_plot, number
from eval.report.sections import Comparisons, Section, Transcripts, tabs_of
from eval.report.transcripts import Packed, pack
from eval.report.views import (
    cell_text,
    comparison_view,
    estimate_text,
    evaluation_view,
    is_number,
    likeness_view,
    short_id,
)
from eval.stats import Estimate

MAX_BYTES = 20_000_000
_RESERVE = 1_500_000
"""Kept for everything but transcripts."""
TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class ReportStats:
    """What was written."""

    path: Path
    size_bytes: int
    episodes_shown: int
    episodes_total: int


def write_report(
    path: Path,
    title: str,
    sections: Sequence[Section],
    *,
    subtitle: str = "",
    max_bytes: int = MAX_BYTES,
    live: bool = False,
) -> ReportStats:
    """Write the report. `live`: a served page says when the run has moved on (eval/viewer.py)."""
    html, packed = render_report(title, sections, subtitle=subtitle, max_bytes=max_bytes, live=live)
    write_text(path, html)
    return ReportStats(path, len(html.encode()), packed.shown, packed.total)


def render_report(
    title: str, sections: Sequence[Section], *, subtitle: str = "", max_bytes: int = MAX_BYTES, live: bool = False
) -> tuple[str, Packed]:
    """The page and what was packed into it. Raises UsageError for two transcript sections."""
    transcripts = [s for s in sections if isinstance(s, Transcripts)]
    if len(transcripts) > 1:
        raise UsageError("a report has one transcripts section", where=title, fix="put all runs into one Transcripts")
    flips = [
        f for s in sections if isinstance(s, Comparisons) for c in s.comparisons for t in c.tasks for f in t.flips
    ]
    urgent = {key for f in flips for key in (f.key_before, f.key_after)}
    runs = [(r.name, r.episodes, r.pieces) for s in transcripts for r in s.runs]
    packed = pack(runs, max_bytes=max(0, max_bytes - _RESERVE), urgent=urgent)
    script = (TEMPLATES / "page.js").read_text()
    html = (
        _environment()
        .get_template("page.html.jinja")
        .render(
            title=title,
            subtitle=subtitle,
            tabs=tabs_of(sections),
            style=Markup((TEMPLATES / "page.css").read_text()),
            script=Markup(script),
            script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
            packed=packed,
            live=live,
        )
    )
    return _encodable(html), packed


def _encodable(html: str) -> str:
    # A lone surrogate in a title or a row id cannot be written as UTF-8.
    return html.encode("utf-8", "replace").decode("utf-8")


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "cell": cell_text, "estimate": estimate_text, "short_id": short_id}
    environment.tests |= {"numeric": is_number, "an_estimate": lambda value: isinstance(value, Estimate)}
    environment.globals |= {
        "line_plot": line_plot,
        "evaluation_view": evaluation_view,
        "comparison_view": comparison_view,
        "likeness_view": likeness_view,
        "chart": {"width": WIDTH, "height": HEIGHT, "left": LEFT, "right": RIGHT, "top": TOP, "bottom": BOTTOM},
        "radar_size": RADAR,
        "kind": lambda section: type(section).__name__,
    }
    return environment
