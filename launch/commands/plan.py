"""`osim plan`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from common.errors import ExitCode, UsageError
from launch.commands.options import example, say

if TYPE_CHECKING:
    from launch.plan.cluster import ClusterConfig
    from launch.plan.report import Report

app = typer.Typer()
RECIPE, CLUSTER = "launch/recipes/midtrain-qwen3-8b.yaml", "launch/recipes/clusters/h100-8x8.yaml"


@app.command(**example(f"osim plan {RECIPE} \\", f"    --cluster {CLUSTER}"))
def plan(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(metavar="[RECIPE] [KEY.PATH=VALUE]...", help="A recipe and overrides.", show_default=False),
    ] = None,
    recipe: Annotated[
        Path | None, typer.Option("--recipe", "-r", help="The recipe, by name.", show_default=False)
    ] = None,
    cluster: Annotated[Path | None, typer.Option(help="YAML of the cluster; default: one node of 8 H100.")] = None,
    kind: Annotated[str | None, typer.Option(help="midtrain or rl; default: by the recipe's keys.")] = None,
    architecture: Annotated[
        Path | None, typer.Option(help="YAML or config.json of the model, where its folder is not here.")
    ] = None,
    exact: Annotated[
        bool, typer.Option(help="Count weights, gradients and optimizer on the trainer itself (seconds).")
    ] = True,
    with_data: Annotated[
        bool, typer.Option("--with-data", help="Also refuse when the recipe's shards are not here or do not fit it.")
    ] = False,
    measured: Annotated[
        list[Path] | None,
        typer.Option(help="Finished runs to compare with what would have been predicted.", show_default=False),
    ] = None,
) -> None:
    """Memory, time, checkpoints and judge calls of a recipe on a cluster, and what would run instead.

    Exit 3 if it cannot run.
    """
    from common.config import load
    from launch.plan.cluster import ClusterConfig

    machines = load(ClusterConfig, cluster)
    if measured:
        from launch.plan.calibration import compare

        for run in measured:
            say(compare(run, machines))
        return
    path, overrides = _recipe_of(arguments or [], recipe)
    found = _plan(path, overrides, machines, kind, architecture, exact=exact, with_data=with_data)
    say(found.text(machines))
    if found.refused:
        raise typer.Exit(int(ExitCode.GATE))


def _recipe_of(arguments: list[str], named: Path | None) -> tuple[Path, list[str]]:
    paths = [a for a in arguments if "=" not in a] + ([str(named)] if named else [])
    if len(paths) != 1:
        raise UsageError(f"{len(paths)} recipes are given", fix=f"give one, e.g. osim plan {RECIPE}")
    return Path(paths[0]), [a for a in arguments if "=" in a]


def _plan(
    path: Path,
    overrides: list[str],
    cluster: ClusterConfig,
    kind: str | None,
    architecture: Path | None,
    *,
    exact: bool,
    with_data: bool,
) -> Report:
    from launch.kinds import kind_of
    from launch.plan.recipes import plan_recipe

    return plan_recipe(
        kind or kind_of(path), path, overrides, cluster, architecture=architecture, exact=exact, with_data=with_data
    )
