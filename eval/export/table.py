"""lm-evaluation-harness style: its Markdown table, and its results JSON, from our results. Pure.

The ± column is half the width of our 95 % interval divided by 1.96, the standard error that would give it; the
interval itself stands beside it, because a bounded score's interval is not symmetric.
"""

from __future__ import annotations

from typing import Any

from eval.results import PartResult, Results, TaskResult, markdown_table
from eval.stats import Estimate

Z95 = 1.96
HEAD = ("Tasks", "Version", "Filter", "n-shot", "Metric", "", "Value", "", "Stderr", "95 % interval", "n", "Scored")


def markdown(results: Results) -> str:
    """The table; parts of a task are indented below it."""
    return markdown_table([HEAD, *(row for t in results.tasks for row in _rows(t))])


def _rows(t: TaskResult) -> list[tuple[str, ...]]:
    arrow = "↑" if t.direction == "higher" else "↓"
    coverage = f"{t.coverage:.1%}"
    rows = [_row(t.task, str(t.version), t.profile, t.metric, arrow, t.estimate, coverage)]
    return rows + [_part(p, arrow) for p in t.parts]


def _part(p: PartResult, arrow: str) -> tuple[str, ...]:
    return _row(f" - {p.name}", "", "", p.name, arrow, p.estimate, "")


def _row(
    name: str, version: str, profile: str, metric: str, arrow: str, e: Estimate | None, coverage: str
) -> tuple[str, ...]:
    if e is None:
        return (name, version, profile, "0", metric, arrow, "–", "±", "–", "no scored episode", "0", coverage)
    interval = f"[{e.low:.4f}, {e.high:.4f}]"
    return (
        *(name, version, profile, "0", metric, arrow, f"{e.value:.4f}", "±", f"{_stderr(e):.4f}"),
        *(interval, str(e.n), coverage),
    )


def _stderr(e: Estimate) -> float:
    return e.half_width / Z95


def lm_eval_json(results: Results) -> dict[str, Any]:
    """The shape of lm-eval's results_*.json: results, versions, n-samples, higher_is_better, config."""
    scored = [t for t in results.tasks if t.estimate is not None]
    return {
        "results": {
            t.task: {
                "alias": t.task,
                f"{t.metric},{t.profile}": t.estimate.value,
                f"{t.metric}_stderr,{t.profile}": _stderr(t.estimate),
            }
            for t in scored
            if t.estimate is not None
        },
        "versions": {t.task: t.version for t in results.tasks},
        "n-shot": {t.task: 0 for t in results.tasks},
        "n-samples": {t.task: {"original": t.planned, "effective": t.scored} for t in results.tasks},
        "higher_is_better": {t.task: {t.metric: t.direction == "higher"} for t in results.tasks},
        "config": {"model": results.provenance.get("source", results.model), "model_args": results.model},
    }
