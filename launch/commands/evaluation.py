"""`osim eval run / compare / rescore / report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from launch.commands.options import Out, Overrides, Recipe, example

app = typer.Typer()
group = typer.Typer(no_args_is_help=True)
app.add_typer(group, name="eval", help="The SOUL suite: run, compare, rescore, report.")
Runs = Annotated[list[Path], typer.Argument(help="Run folders of osim eval run.", show_default=False)]


@group.command(
    **example(
        "osim eval run --recipe launch/recipes/quickstart/eval.yaml --out runs/eval \\",
        "    model.path=runs/quickstart/midtrain/hf limit=100",
    )
)
def run(recipe: Recipe, out: Out = Path("runs/eval"), overrides: Overrides = None) -> None:
    """Evaluate a model: results with coverage and 95 % intervals. Run again, it plays only what has no score.

    The model is a Hugging Face folder; API models cannot be evaluated yet.
    """
    from common.config import load
    from eval.results import text_table
    from launch.evaluation import EvalRunConfig, evaluate
    from launch.progress import show

    config = load(EvalRunConfig, recipe, overrides or ())
    with show("evaluating") as update:
        results = evaluate(config, out.absolute(), lambda p: update(p.done, p.planned, p.line()))
    typer.echo(text_table(results))


@group.command(**example("osim eval compare runs/quickstart/eval-before runs/quickstart/eval-midtrained"))
def compare(runs: Runs) -> None:
    """Paired differences of the later runs from the first, on the questions that both answered."""
    from eval.compare import compare_all
    from eval.results import Results

    for one in compare_all([Results.load(path) for path in runs]):
        typer.echo(f"{one.before} → {one.after}")
        typer.echo(one.summary())


@group.command(**example("osim eval rescore runs/quickstart/eval-midtrained --profile soul --out runs/rescored"))
def rescore(
    run: Annotated[Path, typer.Argument(help="Run folder of osim eval run.", show_default=False)],
    profile: Annotated[str, typer.Option(help="Scorer profile: strict, soul or author.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for results.json.", show_default=False)],
) -> None:
    """Score recorded episodes under another profile, without asking the model again."""
    from eval.results import text_table
    from launch.evaluation import rescore_run

    typer.echo(text_table(rescore_run(run, profile, out)))


@group.command(**example("osim eval report runs/quickstart/eval-midtrained --output report.html"))
def report(
    runs: Runs,
    output: Annotated[Path, typer.Option(help="The page to write.")] = Path("report.html"),
) -> None:
    """One self-contained HTML page over one or several runs: curves, intervals, comparisons, transcripts."""
    from eval.report.from_run import report_runs

    made = report_runs(runs, output)
    typer.echo(
        f"{made.path}: {made.size_bytes / 1e6:.1f} MB, {made.episodes_shown} of {made.episodes_total} episodes"
    )
