"""The report of a run folder: whatever it has of results, metrics and recorded episodes.

Used by `osim eval report`, by `osim view` (again and again during a run) and at the end of an evaluation. Reads only;
a run that has just begun gives a short report, not an error.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from common.errors import OsimError, UsageError
from common.run_folder import RunFolder
from envs import registry
from envs.ledger import LEDGER_FILE, LedgerReader, Recorded
from eval.aggregate import outcome_of
from eval.baseline import part_of
from eval.compare import compare_all
from eval.report.run_facts import costs, likeness_sections, provenance, run_pieces, under_way
from eval.report.sections import (
    Comparisons,
    Curves,
    Evaluations,
    Prose,
    Section,
    Stat,
    Summary,
    TranscriptRun,
    Transcripts,
    curves_from_metrics,
)
from eval.report.transcripts import EpisodeRecord, TokenPieces
from eval.report.write import ReportStats, write_report
from eval.results import RESULTS_FILE, Results
from eval.store import ATTEMPT_STRIDE, PHASE, plan_key

MAX_ROLLOUTS = 2_000
"""Training episodes of one phase in a report; evenly spaced over the steps."""

LEADING_CHARTS = 6
LEADING_METRICS = ("loss", "reward", "score", "accuracy", "gap", "kl", "entropy", "grad_norm", "lr", "tokens")
"""Parts of metric names, most looked-at first."""


def report_runs(
    folders: Sequence[Path], out: Path, *, title: str = "", pieces: TokenPieces | None = None, live: bool = False
) -> ReportStats:
    """Write one report over one or several run folders; the first is what the others are compared with."""
    name = title or " · ".join(f.name for f in folders)
    subtitle = ", ".join(f.name for f in folders) if title else ""
    return write_report(out, name, run_sections(folders, pieces=pieces), subtitle=subtitle, live=live)


def run_sections(folders: Sequence[Path], *, pieces: TokenPieces | None = None) -> list[Section]:
    """Sections of the report. Raises UsageError when a folder is no run folder."""
    for folder in folders:
        if not RunFolder(folder).config.is_file():
            raise UsageError(
                "not a run folder", where=str(folder), fix="give the folder that osim wrote config.yaml to"
            )
    evaluated = [f for f in folders if (f / RESULTS_FILE).is_file()]
    results = distinct([Results.load(f) for f in evaluated], evaluated)
    sections: list[Section] = [_overview(results)] if results else []
    sections += [section for f in folders for section in under_way(f)]
    sections.append(provenance(folders, results))
    sections += costs(folders)
    for folder in folders:
        sections += _curves(folder, label=len(folders) > 1)
    if results:
        sections.append(Evaluations("Results", results))
    if len(results) > 1:
        sections += _comparison(results)
    names = {f: r.name for f, r in zip(evaluated, results, strict=True)}
    sections += [section for f in folders for section in likeness_sections(f, names.get(f, f.name))]
    runs = [run for f in folders for run in transcript_runs(f, name=names.get(f), pieces=pieces or run_pieces(f))]
    if runs:
        sections.append(Transcripts("Transcripts", runs))
    return sections


def distinct(results: Sequence[Results], folders: Sequence[Path]) -> list[Results]:
    """Results of one name are told apart by their folders."""
    names = [r.name for r in results]
    return [
        r.model_copy(update={"name": f"{r.name} ({folder.name})"}) if names.count(r.name) > 1 else r
        for r, folder in zip(results, folders, strict=True)
    ]


def _comparison(results: Sequence[Results]) -> list[Section]:
    """Paired comparisons, or why there are none: a report over unlike runs is still a report."""
    try:
        return [Comparisons("Paired comparison", compare_all(results))]
    except UsageError as e:
        return [Prose("Paired comparison", f"These runs cannot be compared: {e.what}.", tab="Comparison")]


def _curves(folder: Path, *, label: bool) -> list[Curves]:
    """Curves of every phase: what one looks at first, then the rest."""
    sections = []
    lines = RunFolder(folder).read_metrics()
    for phase in dict.fromkeys(str(line["phase"]) for line in lines):
        title = f"{folder.name}: {phase}" if label and phase != folder.name else phase
        curves = curves_from_metrics(title, lines, phase=phase)
        ranked = sorted(curves.charts, key=lambda chart: _rank(chart.title))
        sections.append(Curves(title, ranked[:LEADING_CHARTS]))
        if ranked[LEADING_CHARTS:]:
            sections.append(Curves(f"{title}, further metrics", ranked[LEADING_CHARTS:]))
    return sections


def _rank(metric: str) -> int:
    return next((i for i, word in enumerate(LEADING_METRICS) if word in metric), len(LEADING_METRICS))


def transcript_runs(
    folder: Path, *, name: str | None = None, pieces: TokenPieces | None = None
) -> list[TranscriptRun]:
    """The recorded episodes of a run folder, one group per phase of its ledger. `name` is its results' label."""
    ledger = RunFolder(folder).ledger
    if not (ledger / LEDGER_FILE).is_file():
        return []
    labels = _labels(folder, name)
    with LedgerReader(ledger) as reader:
        recorded = reader.keys()
        phases = list(dict.fromkeys(key.phase for key in recorded))
        found = [(phase, _records(list(reader.episodes(phase=phase)))) for phase in phases]
    return [TranscriptRun(labels.get(phase, f"{folder.name}: {phase}"), records, pieces) for phase, records in found]


def _labels(folder: Path, name: str | None) -> dict[str, str]:
    """Evaluation phases are named as their results are, so that flips find their transcripts."""
    if not (folder / RESULTS_FILE).is_file():
        return {}
    results = Results.load(folder / RESULTS_FILE)
    return {f"{PHASE}/{group}": name or results.name for group in results.groups}


def _records(recorded: Sequence[Recorded]) -> list[EpisodeRecord]:
    newest: dict[str, Recorded] = {}
    for one in recorded:
        key = plan_key(one.key) or f"{one.key.phase}-{one.key.step}-{one.key.prompt_id}-{one.key.sample}"
        newest[key] = one
    chosen = sorted(newest.items(), key=lambda item: _reading_order(item[1]))
    if len(chosen) > MAX_ROLLOUTS and not recorded[0].key.phase.startswith(f"{PHASE}/"):
        chosen = [chosen[i * len(chosen) // MAX_ROLLOUTS] for i in range(MAX_ROLLOUTS)]
    return [_record(key, one) for key, one in chosen]


def _reading_order(recorded: Recorded) -> tuple[object, ...]:
    """By step, task and row, where numbers in a row's id count as numbers (one type per place: all compare)."""
    row = recorded.episode.row
    parts = re.split(r"(\d{1,15})", row.id)
    natural = tuple((int(p) if p.isdigit() else 0, p) for p in parts)
    return (recorded.key.step, row.task, natural, recorded.key.sample)


def _record(key: str, recorded: Recorded) -> EpisodeRecord:
    evaluation = plan_key(recorded.key) is not None
    spec = _spec(recorded.episode.row.task)
    sample = recorded.key.sample
    return EpisodeRecord(
        key=key,
        episode=recorded.episode,
        epoch=sample % ATTEMPT_STRIDE,
        part=part_of(spec, recorded.episode.row) if spec else None,
        outcome=outcome_of(recorded.episode, spec.seats) if spec else None,
        detail="" if evaluation else f"step {recorded.key.step}",
    )


@cache
def _spec(task: str) -> registry.TaskSpec | None:
    try:
        return registry.get(task)
    except OsimError:
        # A task of another version or machine: its episodes are shown without their part.
        return None


def _overview(results: Sequence[Results]) -> Summary:
    stats = []
    for r in results:
        if r.index is not None and len(r.tasks) > 1:
            i = r.index
            label = "SOUL-Index" if i.complete else "SOUL-Index, partial"
            detail = (
                f"95 % interval {i.estimate.low:.3f} to {i.estimate.high:.3f}; mean over rows {i.micro.value:.3f}"
            )
            stats.append(Stat(f"{r.name}: {label}", f"{i.estimate.value:.3f}", detail, "good"))
        for t in r.tasks[:4]:
            e = t.estimate
            value = f"{e.value:.3f}" if e else "no score"
            interval = f"95 % interval {e.low:.3f} to {e.high:.3f}, " if e else ""
            baseline = f"; answer-frequency {t.baseline.value:.3f}" if t.baseline else ""
            detail = f"{interval}{t.scored} of {t.planned} scored{baseline}"
            stats.append(
                Stat(f"{r.name}: {t.task} {t.metric}", value, detail, "plain" if t.coverage >= 0.98 else "bad")
            )
    return Summary("At a glance", stats)
