"""The report of a run folder: whatever it has of results, metrics and recorded episodes.

Used by `osim eval report`, by `osim view` (again and again during a run) and at the end of an evaluation. Reads only;
a run that has just begun gives a short report, not an error.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from common.errors import OsimError, UsageError
from common.files import read_json
from common.run_folder import RunFolder
from envs import registry
from envs.ledger import LEDGER_FILE, LedgerReader, Recorded
from eval.aggregate import outcome_of
from eval.baseline import part_of
from eval.compare import compare_all
from eval.report.sections import (
    Comparisons,
    Curves,
    Evaluations,
    Facts,
    Section,
    Stat,
    Summary,
    Table,
    TranscriptRun,
    Transcripts,
    curves_from_metrics,
)
from eval.report.transcripts import EpisodeRecord, TokenPieces, token_pieces
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
    return write_report(out, name, run_sections(folders, pieces=pieces), subtitle=_subtitle(folders), live=live)


def run_sections(folders: Sequence[Path], *, pieces: TokenPieces | None = None) -> list[Section]:
    """Sections of the report. Raises UsageError when a folder is no run folder."""
    for folder in folders:
        if not RunFolder(folder).config.is_file():
            raise UsageError(
                "not a run folder", where=str(folder), fix="give the folder that osim wrote config.yaml to"
            )
    results = [Results.load(f) for f in folders if (f / RESULTS_FILE).is_file()]
    sections: list[Section] = [_overview(results)] if results else []
    sections.append(_provenance(folders))
    for folder in folders:
        sections += _curves(folder, label=len(folders) > 1)
    if results:
        sections.append(Evaluations("Results", results))
    if len(results) > 1:
        sections.append(Comparisons("Paired comparison", compare_all(results)))
    runs = [run for folder in folders for run in transcript_runs(folder, pieces=pieces)]
    if runs:
        sections.append(Transcripts("Transcripts", runs))
    return sections


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


def transcript_runs(folder: Path, *, pieces: TokenPieces | None = None) -> list[TranscriptRun]:
    """The recorded episodes of a run folder, one group per phase of its ledger."""
    ledger = RunFolder(folder).ledger
    if not (ledger / LEDGER_FILE).is_file():
        return []
    labels = _labels(folder)
    with LedgerReader(ledger) as reader:
        recorded = reader.keys()
        phases = list(dict.fromkeys(key.phase for key in recorded))
        found = [(phase, _records(list(reader.episodes(phase=phase)))) for phase in phases]
    return [TranscriptRun(labels.get(phase, f"{folder.name}: {phase}"), records, pieces) for phase, records in found]


def _labels(folder: Path) -> dict[str, str]:
    """Evaluation phases are named as their results are, so that flips find their transcripts."""
    if not (folder / RESULTS_FILE).is_file():
        return {}
    results = Results.load(folder / RESULTS_FILE)
    return {f"{PHASE}/{group}": results.name for group in results.groups}


def _records(recorded: Sequence[Recorded]) -> list[EpisodeRecord]:
    newest: dict[str, Recorded] = {}
    for one in recorded:
        key = plan_key(one.key) or f"{one.key.phase}-{one.key.step}-{one.key.prompt_id}-{one.key.sample}"
        newest[key] = one
    chosen = list(newest.items())
    if len(chosen) > MAX_ROLLOUTS and not recorded[0].key.phase.startswith(f"{PHASE}/"):
        chosen = [chosen[i * len(chosen) // MAX_ROLLOUTS] for i in range(MAX_ROLLOUTS)]
    return [_record(key, one) for key, one in chosen]


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


def pieces_of(tokenizer_folder: Path) -> TokenPieces | None:
    """Token texts by a Hugging Face tokenizer folder; None when it has no tokenizer.json."""
    path = tokenizer_folder / "tokenizer.json"
    if not path.is_file():
        return None
    tokenizer = Tokenizer.from_file(str(path))
    decode: Callable[[list[int]], str] = lambda ids: tokenizer.decode(ids, skip_special_tokens=False)  # noqa: E731
    return token_pieces(decode)


def _overview(results: Sequence[Results]) -> Summary:
    stats = []
    for r in results:
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


def _provenance(folders: Sequence[Path]) -> Facts | Table:
    """Where numbers come from: facts of one run, or a table of several."""
    found = {f.name: _manifest_facts(f) for f in folders}
    if len(folders) == 1:
        return Facts("Provenance", next(iter(found.values())))
    columns = ("commit", "started", "command")
    rows = [(name, *(facts.get(column, "") for column in columns)) for name, facts in found.items()]
    return Table("Provenance", ("run", *columns), rows, note=_common_packages(list(found.values())))


def _common_packages(facts: Sequence[dict[str, str]]) -> str:
    return "; ".join(dict.fromkeys(f["packages"] for f in facts if f.get("packages")))


def _manifest_facts(folder: Path) -> dict[str, str]:
    facts = {"folder": folder.name}
    manifest = RunFolder(folder).manifest
    if manifest.is_file():
        found: dict[str, Any] = read_json(manifest)
        git = found.get("git") or {}
        commit = str(git.get("commit", "unknown"))[:12]
        facts |= {
            "command": " ".join(
                Path(word).name if "/" in word else word for word in map(str, found.get("command", []))
            ),
            "commit": f"{commit}{' with local changes' if git.get('dirty') else ''}",
            "started": str(found.get("started", "")),
            "packages": ", ".join(f"{k} {v}" for k, v in dict(found.get("packages", {})).items()),
            **{f"input {k}": str(v) for k, v in dict(found.get("inputs", {})).items()},
        }
    return facts


def _subtitle(folders: Sequence[Path]) -> str:
    return ", ".join(f.name for f in folders)
