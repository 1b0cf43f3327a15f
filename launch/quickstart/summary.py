"""The end of a quickstart: paired comparisons, report.html, and the table that the terminal shows."""

from __future__ import annotations

from collections.abc import Sequence

from common.run_folder import RunFolder
from eval.compare import Comparison, compare, compare_all
from eval.results import Results, TaskResult
from launch.quickstart.config import Folders, QuickstartConfig
from launch.quickstart.engine import chosen_engine
from launch.quickstart.evaluation import BEFORE, MIDTRAINED, interval
from launch.quickstart.pipeline import Done, Summary

HELD_OUT = (
    "Held-out questions come from the generator of the train part, which decides by content to which part a story "
    "belongs. The two share no story, but they share sentence templates and names, so overlap of word n-grams "
    "(13-grams too) between them is expected: the accuracies say how well new stories of a known kind are solved, "
    "nothing about other kinds."
)
ENGINES = "Evaluations use the {evaluation} engine, RL rollouts the {rollout} engine."


def run_report(config: QuickstartConfig, folders: Folders) -> Summary:
    """Write RUN/report.html: curves, evaluations, comparisons, transcripts."""
    from eval.report import Comparisons, Prose, Section, write_report
    from eval.report.from_run import run_sections
    from eval.report.run_facts import pieces_of

    runs = [folders.midtrain, *map(folders.rl, config.rl)]
    runs += [folders.evaluation(name) for name in (BEFORE, MIDTRAINED, *config.rl)]
    sections: list[Section] = [
        section
        for section in run_sections(runs, pieces=pieces_of(folders.tokenizer))
        if not isinstance(section, Comparisons)  # ours compare what followed upon what
    ]
    sections.append(Comparisons("Paired comparison on the same questions", comparisons(config, folders)))
    sections.append(Prose("What is held out, and who answers", f"{HELD_OUT}\n\n{_engines(config, folders)}"))
    written = write_report(RunFolder(folders.root).report, f"quickstart · {folders.root.name}", sections)
    return {
        "file": str(written.path),
        "size": f"{written.size_bytes / 1e6:.1f} MB",
        "transcripts": f"{written.episodes_shown} of {written.episodes_total}",
    }


def _engines(config: QuickstartConfig, folders: Folders) -> str:
    return ENGINES.format(evaluation=config.eval.model.engine.kind, rollout=chosen_engine(folders))


def comparisons(config: QuickstartConfig, folders: Folders) -> tuple[Comparison, ...]:
    """Midtraining against its beginning; every RL run against the midtrained model."""
    results = {name: Results.load(folders.evaluation(name)) for name in (BEFORE, MIDTRAINED, *config.rl)}
    first = compare(results[BEFORE], results[MIDTRAINED])
    if not config.rl:
        return (first,)
    return (first, *compare_all([results[MIDTRAINED], *(results[name] for name in config.rl)]))


def print_summary(config: QuickstartConfig, folders: Folders, done: Sequence[Done], peak_gib: float) -> None:
    """Stages with their times, held-out accuracy by order, paired differences, and where the report is."""
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if Console().is_terminal else 132)
    stages = Table("stage", "seconds", "result", title="Stages")
    for stage in done:
        seconds = f"{stage.seconds:.0f}" + (" (before)" if stage.repeated_nothing else "")
        stages.add_row(stage.title, seconds, "; ".join(f"{k} {v}" for k, v in stage.summary.items()))
    console.print(stages)
    console.print(_accuracy_table(config, folders))
    for one in comparisons(config, folders):
        console.print(f"{one.before} → {one.after}: {one.summary()}", highlight=False)
    for line in verdicts(Results.load(folders.evaluation(MIDTRAINED)).tasks[0]):
        console.print(line, highlight=False)
    console.print(f"{HELD_OUT} {_engines(config, folders)}", highlight=False)
    fresh = sum(stage.seconds for stage in done if not stage.repeated_nothing)
    console.print(f"this command: {fresh:.0f} s in stages, {peak_gib:.1f} GiB at most; all stages: "
                  f"{sum(stage.seconds for stage in done):.0f} s", highlight=False)  # fmt: skip
    console.print(f"report: {RunFolder(folders.root).report}", highlight=False, soft_wrap=True)


def _accuracy_table(config: QuickstartConfig, folders: Folders) -> object:
    from rich.table import Table

    names = (BEFORE, MIDTRAINED, *config.rl)
    tasks = {name: Results.load(folders.evaluation(name)).tasks[0] for name in names}
    table = Table("held-out questions", "baseline", *names, title="Accuracy with 95 % intervals")
    base = tasks[MIDTRAINED]
    table.add_row("all", interval(base.baseline), *(interval(t.estimate) for t in tasks.values()))
    for part in base.parts:
        cells = [interval(next((p.estimate for p in t.parts if p.name == part.name), None)) for t in tasks.values()]
        table.add_row(f"{part.name} (n = {part.estimate.n})", interval(part.baseline), *cells)
    return table


def verdicts(task: TaskResult) -> list[str]:
    """Whether the midtrained model beats the answer-frequency baseline, intervals apart: overall and by part."""
    lines = []
    rows = [("all questions", task.estimate, task.baseline), *((p.name, p.estimate, p.baseline) for p in task.parts)]
    for name, estimate, baseline in rows:
        if estimate is None or baseline is None:
            continue
        above = estimate.low > baseline.high
        lines.append(f"{name}: after midtraining {'above' if above else 'not above'} the answer-frequency baseline, "
                     f"intervals {'apart' if above or estimate.high < baseline.low else 'overlap'}")  # fmt: skip
    return lines
