"""`osim task list / check / golden / play`: the task registry."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from common.errors import ExitCode, UsageError
from launch.commands.options import example

app = typer.Typer()
group = typer.Typer(no_args_is_help=True)
app.add_typer(group, name="task", help="The task registry: list, check, golden, play.")
PATIENCE_S = 86_400.0
"""A person may think for a day."""
Name = Annotated[str, typer.Argument(help="A task, or package.module:function outside osim.", show_default=False)]


@group.command("list", **example("osim task list"))
def list_tasks() -> None:
    """Every task: axis, metric and its direction, what is resampled, scorer profiles, feedback, licence."""
    from envs import registry

    for name in registry.names():
        spec = registry.get(name)
        feedback = spec.feedback.kind + (" (sees gold)" if spec.feedback.sees_gold else "")
        typer.echo(f"{spec.name}  v{spec.version}  {spec.axis}  {spec.metric.name} {spec.metric.arrow}")
        typer.echo(
            f"    seats {', '.join(spec.seats)}; cluster {spec.cluster}; profiles {', '.join(spec.profiles)}; "
            f"feedback {feedback}; licence: {spec.licence}"
        )


@group.command(**example("osim task check hitom"))
def check(name: Name) -> None:
    """Conformance: repeatable rows, pure environment, private views, declared judges. Exit 3 on a violation."""
    from envs import registry
    from envs.check import check as violations_of

    violations = violations_of(registry.get(name))
    for violation in violations:
        typer.echo(f"✗ {violation.rule}: {violation.detail}")
    if violations:
        raise typer.Exit(int(ExitCode.GATE))
    typer.echo(f"✓ {name} conforms")


@group.command(**example("osim task golden golden/fantom.jsonl"))
def golden(
    files: Annotated[list[Path], typer.Argument(help="JSON-lines files of golden rows.", show_default=False)],
) -> None:
    """Compare our `author` rules with outputs of the benchmark authors' own scorers. Exit 3 on a difference."""
    from envs import golden as vectors

    different = 0
    for file in files:
        rows = vectors.read(file)
        found = vectors.compare(rows)
        typer.echo(f"{'✗' if found else '✓'} {file}: {len(rows) - len(found)} of {len(rows)} equal")
        for one in found:
            typer.echo(f"    {one}")
        different += len(found)
    if different:
        raise typer.Exit(int(ExitCode.GATE))


@group.command(**example("osim task play hitom --row 3"))
def play(
    name: Name,
    row: Annotated[int, typer.Option(help="Which row of the split, from 0.", min=0)] = 0,
    split: Annotated[str, typer.Option(help="Split of the task's rows.")] = "test",
    seed: Annotated[int, typer.Option(help="Seed of the row source and of the episode.")] = 0,
) -> None:
    """Take every seat yourself; the environment scores you."""
    import asyncio

    from envs import registry
    from envs.play import play as play_episode
    from envs.players.human import HumanPlayer

    spec = registry.get(name)
    rows = list(islice(spec.rows(split, row + 1, seed), row, row + 1))
    if not rows:
        raise UsageError(f"split {split!r} has no row {row}", where=f"task {name}", fix="give a smaller --row")
    env = spec.env("strict")
    players = {seat: HumanPlayer() for seat in env.seats}
    limits = replace(spec.limits, turn_timeout_s=PATIENCE_S, episode_timeout_s=PATIENCE_S)
    episode = asyncio.run(play_episode(env, rows[0], players, seed=seed, limits=limits))
    for seat, outcome in episode.outcomes.items():
        typer.echo(f"{seat}: {outcome}")
