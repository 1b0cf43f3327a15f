"""`osim task list / check / golden / play` and `osim play`: the task registry."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from common.errors import ExitCode, UsageError
from launch.commands.options import example, say

app = typer.Typer()
group = typer.Typer(no_args_is_help=True)
app.add_typer(group, name="task", help="The task registry: list, check, golden, play.")
DIFFERENT = 1
"""Exit status of `golden` when a row differs, as of `diff` and `cmp`."""
Data = Annotated[
    Path | None,
    typer.Option(help="Your copy of the benchmark, instead of its own or example rows.", show_default=False),
]
Name = Annotated[str, typer.Argument(help="A task, or FILE.py or package.module:function.", show_default=False)]


@group.command("list", **example("osim task list"))
def list_tasks() -> None:
    """Every task: axis, metric and its direction, what is resampled, scorer profiles, feedback, licence."""
    from envs import registry

    for name in registry.names():
        spec = registry.get(name)
        feedback = spec.feedback.kind + (" (sees gold)" if spec.feedback.sees_gold else "")
        say(f"{spec.name}  v{spec.version}  {spec.axis}  {spec.metric.name} {spec.metric.arrow}")
        say(
            f"    seats {', '.join(spec.seats)}; cluster {spec.cluster}; profiles {', '.join(spec.profiles)}; "
            f"feedback {feedback}; licence: {spec.licence}"
        )


@group.command(**example("osim task check hitom", "osim task check ./my_task.py"))
def check(name: Name, data: Data = None) -> None:
    """Conformance: repeatable rows, purity, private views, determinism, scorer bounds. Exit 3 on a violation."""
    from envs import registry
    from envs.check import check as violations_of

    spec = registry.get(name)
    violations = violations_of(spec if data is None else registry.with_data(spec, data))
    for violation in violations:
        say(f"✗ {violation.rule}: {violation.detail}")
    if violations:
        raise typer.Exit(int(ExitCode.GATE))
    say(f"✓ {name} conforms")


@group.command(**example("osim task golden golden/fantom.jsonl"))
def golden(
    files: Annotated[list[Path], typer.Argument(help="JSON-lines files of golden rows.", show_default=False)],
) -> None:
    """Compare our `author` rules with outputs of the benchmark authors' own scorers. Exit 1 on a difference."""
    from envs import golden as vectors

    different = 0
    for file in files:
        rows = vectors.read(file)
        found = vectors.compare(rows)
        say(f"{'✗' if found else '✓'} {file}: {len(rows) - len(found)} of {len(rows)} equal")
        for one in found:
            say(f"    {one}")
        different += len(found)
    if different:
        raise typer.Exit(DIFFERENT)


@app.command(**example("osim play negotiate --seat opener --partner qwen3-8b --out runs/talks"))
@group.command(**example("osim task play hitom --row 3"))
def play(
    name: Name,
    row: Annotated[int, typer.Option(help="Which row of the split, from 0.", min=0)] = 0,
    split: Annotated[str, typer.Option(help="Split of the task's rows.")] = "test",
    seed: Annotated[int, typer.Option(help="Seed of the row source and of the episode.")] = 0,
    data: Data = None,
    seat: Annotated[list[str] | None, typer.Option(help="A seat that you take; none: every seat.")] = None,
    partner: Annotated[
        str | None, typer.Option(help="Model at OPENAI_BASE_URL for the seats that you leave.", show_default=False)
    ] = None,
    judge: Annotated[
        str | None, typer.Option(help="Model at OPENAI_BASE_URL that judges, where the task asks one.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Ledger folder that keeps the episode.", show_default=False)
    ] = None,
) -> None:
    """Take a seat yourself; the environment scores you. Type /quit to leave."""
    import asyncio

    from envs import registry
    from launch.playing import play_in_terminal

    spec = registry.get(name)
    spec = registry.with_data(spec, data, split) if data is not None else spec
    shown = spec.examples() if spec.read and spec.examples else spec.rows(split, row + 1, seed)
    rows = list(islice(shown, row, row + 1))
    if not rows:
        raise UsageError(f"split {split!r} has no row {row}", where=f"task {name}", fix="give a smaller --row")
    taken = tuple(seat or spec.env("strict").seats)
    episode = asyncio.run(play_in_terminal(spec, rows[0], taken, seed=seed, partner=partner, judge=judge, out=out))
    for who, outcome in episode.outcomes.items():
        say(f"{who}: {outcome}")
