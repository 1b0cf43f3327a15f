"""`osim eval run / compare / rescore / likeness / report / export`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from launch.commands.options import Out, Overrides, example, say

app = typer.Typer()
group = typer.Typer(no_args_is_help=True)
app.add_typer(group, name="eval", help="The SOUL suite: run, compare, rescore, likeness, report, export.")
Runs = Annotated[list[Path], typer.Argument(help="Run folders of osim eval run.", show_default=False)]
Run = Annotated[Path, typer.Argument(help="Run folder of osim eval run.", show_default=False)]
Recipe = Annotated[
    Path | None, typer.Option("--recipe", "-r", help="YAML recipe (closed schema).", show_default=False)
]
Engine = Literal["auto", "sglang", "vllm", "embedded"]
REF = "a Hugging Face or run folder, or api:MODEL[@URL]"


@group.command(
    **example(
        "osim eval run --suite hitom_mini --model runs/quickstart/midtrain/hf --out runs/eval limit=100 \\",
        "    decoding.max_tokens=32",
        "osim eval run --suite hitom --model api:MODEL@http://127.0.0.1:8000/v1 --dry-run limit=20",
    )
)
def run(
    suite: Annotated[
        str | None, typer.Option("--suite", "-s", help="soul, soul-core, quick, or TASK,…", show_default=False)
    ] = None,
    model: Annotated[str | None, typer.Option("--model", "-m", help=f"{REF}.", show_default=False)] = None,
    recipe: Recipe = None,
    judge: Annotated[str | None, typer.Option(help="api:MODEL[@URL] of the judge.", show_default=False)] = None,
    partner: Annotated[str | None, typer.Option(help="api:MODEL[@URL] of partners.", show_default=False)] = None,
    engine: Annotated[
        Engine | None,
        typer.Option(help="What serves local weights; auto: SGLang where it is built.", show_default=False),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Ask everybody once, tell calls, tokens, price, time; then stop.")
    ] = False,
    out: Out = Path("runs/eval"),
    overrides: Overrides = None,
) -> None:
    """Evaluate a model: results with coverage and 95 % intervals. Run again, it plays only what has no score.

    A dry run comes first. An API model needs no torch: its key is read from OPENAI_API_KEY, or from the variable that
    model.endpoint.api_key_variable names.
    """
    from common.config import load
    from eval.progress import board
    from eval.results import text_table
    from launch.evaluation import EvalRunConfig, evaluate
    from launch.evaluation import dry_run as check

    chosen = _options(suite, model, judge, partner, engine, recipe)
    config = load(EvalRunConfig, recipe, [*chosen, *(overrides or ())])
    if dry_run:
        check(config, out.absolute(), say)
        return
    with board() as update:
        results = evaluate(config, out.absolute(), update, say=say)
    say(text_table(results))
    say(f"\nread it: osim view {out}   compare it: osim eval compare {out} OTHER")


def _options(
    suite: str | None,
    model: str | None,
    judge: str | None,
    partner: str | None,
    engine: Engine | None,
    recipe: Path | None,
) -> list[str]:
    """The options as overrides, before the person's own."""
    from launch.evaluation.config import parse_endpoint, parse_model

    out = [f"suite={suite}"] if suite else []
    if model is not None:
        found = parse_model(model)
        out += [f"model.{name}={json.dumps(found.get(name))}" for name in ("path", "endpoint")]
    for role, ref in (("judge", judge), ("partner", partner)):
        if ref is not None:
            out.append(f"client.{role}={json.dumps(parse_endpoint(ref))}")
    if engine == "vllm":
        out.append("model.vllm={}")
    elif engine is not None or recipe is None:
        out.append(f"model.engine.kind={engine or 'auto'}")
    return out


@group.command(**example("osim eval compare runs/quickstart/eval-before runs/quickstart/eval-midtrained"))
def compare(
    runs: Runs,
    flips: Annotated[int, typer.Option(help="Rows that changed sides, listed per task.", min=0)] = 5,
) -> None:
    """Paired differences of the later runs from the first, on the questions that both answered."""
    from eval.compare import compare_all
    from eval.results import Results

    found = [Results.load(path) for path in runs]
    if len({r.name for r in found}) < len(found):
        # Runs of one model: told apart by their folders.
        found = [r.model_copy(update={"name": f"{r.name} ({path})"}) for r, path in zip(found, runs, strict=True)]
    for one in compare_all(found):
        say(f"{one.before} → {one.after}")
        say(one.summary(flips=flips))


@group.command(
    **example(
        "osim eval rescore runs/quickstart/eval-midtrained --profile soul --out runs/rescored",
        "osim eval rescore RUN --judge api:OTHER-JUDGE --out runs/unseen-judge",
    )
)
def rescore(
    run: Run,
    out: Annotated[Path, typer.Option("--out", "-o", help="Run folder for the new scores.", show_default=False)],
    profile: Annotated[
        str | None, typer.Option(help="Scorer profile: strict, soul or author.", show_default=False)
    ] = None,
    judge: Annotated[
        str | None,
        typer.Option(
            help="api:MODEL[@URL] of another judge; without it recorded replies answer.", show_default=False
        ),
    ] = None,
) -> None:
    """Score recorded episodes under another profile or by another judge, without asking the model again."""
    from common.errors import UsageError
    from envs.client.config import Endpoint
    from eval.results import text_table
    from launch.evaluation import rescore_run
    from launch.evaluation.config import parse_endpoint

    if profile is None and judge is None:
        raise UsageError("nothing would change", fix="give --profile, --judge, or both")
    endpoint = Endpoint(**parse_endpoint(judge)) if judge else None
    rescored = rescore_run(run, profile, out.absolute(), judge=endpoint)
    say(text_table(rescored.results))
    for one in rescored.agreement:
        say(f"new judge against recorded judge: {one.line()}")


@group.command(**example("osim eval likeness runs/eval --human people.jsonl"))
def likeness(
    run: Run,
    human: Annotated[
        Path | None,
        typer.Option(help="Human turns as JSON lines {text, conversation}; else the rows' own.", show_default=False),
    ] = None,
    classifier: Annotated[bool, typer.Option(help="Also train the two-sample classifier.")] = True,
) -> None:
    """How far the model's turns are from people's, beside how far people are from each other."""
    from launch.evaluation.likeness import likeness_of_run

    found = likeness_of_run(run, human, with_classifier=classifier)
    for m in found.turns.measures if found.turns else ():
        inside = "as people differ" if m.within_floor else "beyond what people differ by"
        say(
            f"{m.group}: {m.name}: {m.distance.value:.3f} [{m.distance.low:.3f}, {m.distance.high:.3f}], "
            f"human-human {m.floor:.3f} (95 %: {m.floor_high:.3f}): {inside}"
        )
    if (c := found.collapse) is not None:
        say(
            f"mode collapse over {c.samples} samples of {c.prompts} prompts: similarity within "
            f"{c.within.value:.3f} [{c.within.low:.3f}, {c.within.high:.3f}], between {c.between:.3f}, "
            f"distinct {c.distinct:.1%}"
        )
    for task, survey in found.surveys.items():
        say(f"{task}: {'; '.join(survey.lines()) or 'no question has enough answers'}")
    if found.reactions is not None:
        say(found.reactions.line())
    for note in found.notes:
        say(note)


@group.command(**example("osim eval report runs/quickstart/eval-midtrained --output report.html"))
def report(
    runs: Runs,
    output: Annotated[Path, typer.Option(help="The page to write.")] = Path("report.html"),
) -> None:
    """One self-contained HTML page over one or several runs: curves, intervals, comparisons, transcripts."""
    from eval.report.from_run import report_runs

    made = report_runs(runs, output)
    say(f"{made.path}: {made.size_bytes / 1e6:.1f} MB, {made.episodes_shown} of {made.episodes_total} episodes")


@group.command(
    **example(
        "osim eval export runs/quickstart/eval-midtrained --format inspect --out exports",
        "osim eval export RUN --format table",
    )
)
def export(
    run: Run,
    form: Annotated[
        Literal["table", "lm-eval", "json", "parquet", "inspect", "wandb"],
        typer.Option("--format", "-f", help="What to write.", show_default=False),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the files.")] = Path("exports"),
    online: Annotated[bool, typer.Option("--online", help="wandb: send it now (offline otherwise).")] = False,
) -> None:
    """Results for other tools: an lm-eval-style table or JSON, episodes as Parquet, Inspect logs, W&B."""
    from launch.evaluation.exporting import export_run

    for line in export_run(run, form, out, online=online):
        say(line)
