"""Results of an evaluation: what is measured, of how much, how sure. The schema of results.json.

A value never travels without its interval, its n and its coverage. Per-episode values are kept (`Item`), so that
two results files are enough for a paired comparison, and a saved file can be resampled again. Reading a file of a
newer schema is refused (DataError); writing is atomic.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from common.config import Config
from common.errors import DataError, GateError, UsageError
from common.files import read_json, write_json
from eval.stats import Estimate

SCHEMA_VERSION = 1
RESULTS_FILE = "results.json"

Direction = Literal["higher", "lower"]


class Item(Config):
    """One episode. `content` hashes task version and row: two items with equal content and epoch are pairs."""

    row: str
    epoch: int
    cluster: str
    content: str
    key: str
    """Content hash of everything that determines the episode; the ledger's key and the report's permalink."""
    value: float | None
    """None: unscored, for `reason`. Never a stand-in number."""
    reason: str | None = None
    format_error: bool = False
    parts: dict[str, float] = Field(default_factory=dict)


class PartResult(Config):
    """A named part of a task (an order, a dimension): mean over the episodes that have it."""

    name: str
    estimate: Estimate
    baseline: Estimate | None = None


class TaskResult(Config):
    """One task under one scorer profile."""

    task: str
    version: int
    axis: str
    profile: str
    metric: str
    direction: Direction = "higher"
    planned: int
    scored: int
    unscored: dict[str, int] = Field(default_factory=dict)
    """Count per reason."""
    format_errors: int = 0
    estimate: Estimate | None
    """None when nothing was scored."""
    baseline: Estimate | None = None
    """The answer-frequency predictor on the same rows (eval/baseline.py)."""
    baseline_note: str = ""
    parts: tuple[PartResult, ...] = ()
    items: tuple[Item, ...] = ()
    extra: dict[str, float] = Field(default_factory=dict)
    """Dataset-level numbers of the task that are no mean over episodes: reported without an interval."""
    licence: str = ""

    @property
    def coverage(self) -> float:
        return self.scored / self.planned if self.planned else 0.0


class AxisResult(Config):
    """One axis of the index: the mean over its tasks, sub-splits of one task counted once."""

    axis: str
    estimate: Estimate
    tasks: tuple[str, ...]


class IndexResult(Config):
    """SOUL-Index with the definition it was computed by."""

    estimate: Estimate
    micro: Estimate
    """OdysSim's aggregate: mean over all rows of all tasks."""
    axes: tuple[AxisResult, ...]
    definition: str
    complete: bool
    """False: axes or tasks are missing, so the number is not comparable with a full SOUL-Index."""
    missing: tuple[str, ...] = ()


class Results(Config):
    """Everything one evaluation found."""

    schema_version: int = SCHEMA_VERSION
    name: str
    """Label of this evaluation in tables, e.g. "after GRPO"."""
    model: str
    """Identity of what was evaluated: a path plus weights hash, or an endpoint plus model name."""
    plan: str
    """Hash of the plan: equal plans asked the same questions in the same way."""
    groups: tuple[str, ...] = ()
    """Names of its episode groups in the ledger (eval/store.py)."""
    seed: int
    epochs: int
    profile: str
    tasks: tuple[TaskResult, ...]
    index: IndexResult | None = None
    index_refused: str = ""
    """Why there is no index although SOUL tasks were evaluated: coverage below the bound."""
    absent: dict[str, str] = Field(default_factory=dict)
    """Tasks of the suite that were not evaluated, with the reason."""
    control: str = "none"
    """imposter: the personas were swapped (eval/control.py)."""
    wall_s: float = 0.0
    cost_usd: float = 0.0
    """Of the plays that count; what failed tries cost too is in the ledger and in the report's table of API calls."""
    generated_tokens: int = 0
    provenance: dict[str, str] = Field(default_factory=dict)

    def task(self, name: str) -> TaskResult:
        for one in self.tasks:
            if one.task == name:
                return one
        known = ", ".join(t.task for t in self.tasks)
        raise UsageError(f"no task {name!r} in these results", where=self.name, fix=f"choose one of: {known}")

    @property
    def coverage(self) -> float:
        planned = sum(t.planned for t in self.tasks)
        return sum(t.scored for t in self.tasks) / planned if planned else 0.0

    def require_coverage(self, minimum: float) -> None:
        """Raise LowCoverage (exit 3) when any task has fewer scored episodes than `minimum` of its plan."""
        low = [t for t in self.tasks if t.coverage < minimum]
        if not low:
            return
        lines = "; ".join(f"{t.task} {t.scored}/{t.planned} ({_reasons(t.unscored)})" for t in low)
        raise LowCoverage(self, f"coverage is below {minimum:.0%}: {lines}")

    def save(self, path: Path) -> None:
        """Write results.json atomically."""
        write_json(path, self.model_dump(mode="json"))

    @classmethod
    def load(cls, path: Path) -> Results:
        """Read a results.json, or the one inside a run folder."""
        file = path / RESULTS_FILE if path.is_dir() else path
        if not file.is_file():
            raise UsageError(
                "no results here", where=str(file), fix="give a run folder that osim eval run has finished"
            )
        raw = read_json(file, fix="run osim eval run again on this folder")
        found = raw.get("schema_version") if isinstance(raw, Mapping) else None
        if found != SCHEMA_VERSION:
            raise DataError(
                f"results schema {found}, this osim reads {SCHEMA_VERSION}",
                where=str(file),
                fix="rescore the run with this version: osim eval rescore RUN",
            )
        try:
            return cls.model_validate(raw)
        except ValidationError as e:
            raise DataError(
                f"not a results file: {e.error_count()} violations, first: {e.errors()[0]['msg']}",
                where=str(file),
                fix="rescore the run: osim eval rescore RUN",
            ) from e


class LowCoverage(GateError):
    """Too many episodes have no score. `results` holds what there is."""

    def __init__(self, results: Results, what: str) -> None:
        self.results = results
        fix = "run the same command again (it repeats only what has no score), or lower min_coverage and say so"
        super().__init__(what, where=results.name, fix=fix)


def _reasons(unscored: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in sorted(unscored.items())) or "not run"


def text_table(results: Results) -> str:
    """An lm-eval-style table in Markdown; parts are indented below their task."""
    head = ["Task", "Version", "Profile", "n", "Scored", "Metric", "", "Value", "95 % interval", "Answer-frequency"]
    lines = [head]
    for t in results.tasks:
        arrow = "↑" if t.direction == "higher" else "↓"
        scored = f"{t.coverage:.1%}"
        start = [t.task, str(t.version), t.profile, str(t.planned), scored, t.metric, arrow]
        lines.append([*start, *_value_cells(t.estimate), _estimate_text(t.baseline)])
        for p in t.parts:
            start = [f"  {p.name}", "", "", str(p.estimate.n), "", "", arrow]
            lines.append([*start, *_value_cells(p.estimate), _estimate_text(p.baseline)])
    if results.index:
        i = results.index
        label = "SOUL-Index" if i.complete else "SOUL-Index (partial)"
        lines.append([label, "", results.profile, str(i.estimate.n), "", "", "↑", *_value_cells(i.estimate), ""])
        lines.append(["micro-average", "", results.profile, str(i.micro.n), "", "", "↑", *_value_cells(i.micro), ""])
    return "\n".join([markdown_table(lines), *_remarks(results)])


def markdown_table(lines: Sequence[Sequence[str]]) -> str:
    """Rows of equal length, the first of them the head, as a table whose columns are aligned."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rendered = ["| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |" for line in lines]
    rendered.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
    return "\n".join(rendered)


def _remarks(results: Results) -> list[str]:
    """What must stand under the table."""
    lines = [f"SOUL-Index: {results.index.definition}"] if results.index else []
    if results.index_refused:
        lines.append(f"No SOUL-Index: {results.index_refused}.")
    lines += [f"Not evaluated: {name}: {why}" for name, why in results.absent.items()]
    if results.control != "none":
        lines.append(f"Control: {results.control}. These are not the model's scores.")
    return lines


def _value_cells(e: Estimate | None) -> list[str]:
    return [f"{e.value:.4f}", f"[{e.low:.4f}, {e.high:.4f}]"] if e else ["–", "no scored episode"]


def _estimate_text(e: Estimate | None) -> str:
    return f"{e.value:.4f} [{e.low:.4f}, {e.high:.4f}]" if e else ""
