"""The verbs of `osim data` that work on corpus files: ground, decontaminate, deduplicate, fetch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from common.errors import UsageError
from launch.commands.options import Overrides, Recipe, example, say

Files = Annotated[list[Path], typer.Option("--input", "-i", help="Corpus file; repeat it.", show_default=False)]
Yes = Annotated[bool, typer.Option("--yes", help="Go ahead; without it only the plan is shown.")]
GIB = 2**30


def add_corpus_commands(group: typer.Typer) -> None:
    """Register the verbs on `osim data`."""
    group.command(**example("osim data ground -r ground.yaml -i corpus.jsonl --output grounded.jsonl --yes"))(ground)
    group.command(
        **example("osim data decontaminate -i corpus.jsonl --against benchmark.jsonl --output removals.jsonl")
    )(decontaminate)
    group.command(**example("osim data deduplicate -i corpus.jsonl --output removals.jsonl"))(deduplicate)
    group.command(**example("osim data fetch owner/name --output data/raw --yes"))(fetch)


def ground(
    recipe: Recipe,
    files: Files,
    output: Annotated[Path, typer.Option(help="JSONL to write.", show_default=False)],
    yes: Yes = False,
    overrides: Overrides = None,
) -> None:
    """Write the social grounding of conversations that lack it, by a language model. Shows the cost first."""
    from common.config import load
    from data_tools.ground import GroundConfig, estimate
    from data_tools.ground import ground as run
    from launch.progress import show

    config = load(GroundConfig, recipe, overrides or ())
    _check_files(files)
    planned = estimate(files, config)
    say(
        f"{planned.to_ground} of {planned.rows} rows lack grounding: about {planned.input_tokens} tokens in, "
        f"{planned.output_tokens} out, ${planned.usd:.2f}"
    )
    if not yes:
        say("give --yes to ask the model")
        return
    with show("grounding rows") as update:
        report = run(files, output, config, progress=lambda done, total: update(done, total, ""))
    failed = ", ".join(f"{count} {reason}" for reason, count in report.failed.items()) or "none"
    say(f"{output}: {report.grounded} grounded ({report.from_cache} from the cache), failed: {failed}")
    say(f"spent ${report.usd:.2f}")


def decontaminate(
    files: Files,
    against: Annotated[list[Path], typer.Option(help="Evaluation file (corpus format or .txt).", show_default=False)],
    output: Annotated[Path, typer.Option(help="List of rows to leave out, for `osim data prepare`.")],
) -> None:
    """Find corpus rows that contain what an evaluation asks: a shared n-gram, or nearly the same text."""
    from data_tools.decontaminate import decontaminate as run
    from data_tools.decontaminate import references_from
    from data_tools.removal import write_removals
    from launch.progress import show

    _check_files([*files, *against])
    with show("bytes") as update:
        report = run(files, references_from(against), progress=lambda done, total: update(done, total, ""))
    write_removals(output, report.removals)
    for source, rows in report.rows.items():
        reasons = ", ".join(f"{n} {why}" for why, n in report.by_source.get(source, {}).items()) or "clean"
        say(f"{source}: {rows} rows, {reasons}")
    say(f"{output}: {len(report.removals)} rows; {report.short_references} references too short to test")


def deduplicate(
    files: Files,
    output: Annotated[Path, typer.Option(help="List of rows to leave out, for `osim data prepare`.")],
    similarity: Annotated[float, typer.Option(help="Share of common 5-word shingles.", min=0.5, max=1.0)] = 0.8,
) -> None:
    """Find rows that nearly repeat an earlier row (MinHash); the first of them is kept."""
    from data_tools.near_duplicates import find_near_duplicates
    from data_tools.removal import count_by_source, write_removals
    from launch.progress import show

    _check_files(files)
    with show("bytes") as update:
        removals = find_near_duplicates(
            files, similarity=similarity, progress=lambda done, total: update(done, total, "")
        )
    write_removals(output, removals)
    for source, reasons in count_by_source(removals).items():
        say(f"{source}: {sum(reasons.values())} rows repeat an earlier one")
    say(f"{output}: {len(removals)} rows")


def fetch(
    dataset: Annotated[str, typer.Argument(help="owner/name on the hub, or a known short name.", show_default=False)],
    output: Annotated[Path, typer.Option(help="Folder for the files.", show_default=False)],
    revision: Annotated[str | None, typer.Option(help="Commit, branch or tag; none: the newest.")] = None,
    yes: Yes = False,
) -> None:
    """Download the corpus files of a dataset at one commit. Shows commit, files and size first."""
    from data_tools.fetch import fetch as run
    from data_tools.fetch import plan_fetch

    plan = plan_fetch(dataset, revision=revision)
    say(f"{plan.repository} at {plan.commit}: {len(plan.files)} files, {plan.bytes / GIB:.2f} GiB")
    if not yes:
        say("give --yes to download them")
        return
    for path in run(plan, output):
        say(path)


def _check_files(files: list[Path]) -> None:
    missing = [str(path) for path in files if not path.is_file()]
    if missing:
        raise UsageError("no such file", where=", ".join(missing), fix="correct the path")
