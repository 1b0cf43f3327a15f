"""`osim launch …`: jobs on this machine, on Slurm, or on Slurm over SSH."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from launch.commands.options import Overrides, Recipe, example, say

if TYPE_CHECKING:
    from launch.submit.config import Kind
    from launch.submit.jobs import Site
    from launch.submit.submit import Planned

app = typer.Typer()
group = typer.Typer(no_args_is_help=True)
app.add_typer(
    group, name="launch", help="Jobs on this machine, on Slurm, or on Slurm over SSH: submit, follow, cancel."
)

RECIPE, CLUSTER = "launch/recipes/midtrain-qwen3-8b.yaml", "launch/recipes/clusters/h100-8x8.yaml"
ON = f"--cluster {CLUSTER}"
Cluster = Annotated[
    Path, typer.Option("--cluster", "-c", help="YAML of the cluster with its `slurm:`.", show_default=False)
]
Out = Annotated[Path, typer.Option("--out", "-o", help="Run folder, seen by all nodes.", show_default=False)]
Nodes = Annotated[int | None, typer.Option(help="Nodes; default: all of the cluster file.", min=1)]
RolloutNodes = Annotated[int, typer.Option(help="Nodes for rollout servers alone; 0: on the actor's.", min=0)]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the exact scripts; submit and write nothing.")]
Wait = Annotated[bool, typer.Option("--wait", help="Until it has ended; then exit with the job's own exit code.")]
Where = Literal["local", "slurm"]
Executor = Annotated[Where | None, typer.Option(help="Default: slurm where the cluster file has `slurm:`.")]
Run = Annotated[Path, typer.Argument(help="Folder that --out named.", show_default=False)]


@group.command(**example(f"osim launch midtrain --recipe {RECIPE} {ON} --out runs/midtrain --dry-run"))
def midtrain(
    recipe: Recipe, cluster: Cluster, out: Out, nodes: Nodes = None, dry_run: DryRun = False, wait: Wait = False,
    executor: Executor = None, overrides: Overrides = None,
) -> None:  # fmt: skip
    """Midtraining on all nodes, in one torch job."""
    _launch("midtrain", recipe, cluster, out, overrides, nodes=nodes, dry_run=dry_run, wait=wait, executor=executor)


@group.command(
    **example(
        f"osim launch rl --recipe launch/recipes/quickstart/grpo.yaml {ON} --out runs/grpo --dry-run \\",
        "    --nodes 4 --rollout-nodes 4 model=runs/quickstart/midtrain/hf",
    )
)
def rl(
    recipe: Recipe, cluster: Cluster, out: Out, nodes: Nodes = None,
    rollout_nodes: RolloutNodes = 0,
    dry_run: DryRun = False, wait: Wait = False, executor: Executor = None, overrides: Overrides = None,
) -> None:  # fmt: skip
    """RL: actor, rollout servers and coordinator as one (heterogeneous) job."""
    _launch(
        "rl", recipe, cluster, out, overrides, nodes=nodes, rollout_nodes=rollout_nodes, dry_run=dry_run, wait=wait,
        executor=executor,
    )  # fmt: skip


@group.command(
    "eval",
    **example(
        f"osim launch eval --recipe launch/recipes/quickstart/eval.yaml {ON} --out runs/eval --dry-run \\",
        "    model.path=runs/quickstart/midtrain/hf",
    ),
)
def evaluation(
    recipe: Recipe, cluster: Cluster, out: Out, dry_run: DryRun = False, wait: Wait = False,
    executor: Executor = None, overrides: Overrides = None,
) -> None:  # fmt: skip
    """An evaluation on one node."""
    _launch("eval", recipe, cluster, out, overrides, dry_run=dry_run, wait=wait, executor=executor)


@group.command(
    **example(
        f"osim launch data --recipe launch/recipes/quickstart/prepare.yaml {ON} --out runs/data \\",
        "    --shards 16 --dry-run 'inputs=[{glob: corpus/*.jsonl}]' \\",
        "    tokenizer=runs/quickstart/tokenizer/hf output=data/train",
    )
)
def data(
    recipe: Recipe, cluster: Cluster, out: Out,
    shards: Annotated[int, typer.Option(help="Independent jobs of an array; a last one joins them.", min=1)] = 1,
    dry_run: DryRun = False, wait: Wait = False, executor: Executor = None, overrides: Overrides = None,
) -> None:  # fmt: skip
    """Data preparation, as an array over shards."""
    _launch("data", recipe, cluster, out, overrides, shards=shards, dry_run=dry_run, wait=wait, executor=executor)


@group.command(**example(f"osim launch chain launch/recipes/chains/soul.yaml {ON} --out runs/soul --dry-run"))
def chain(
    stages: Annotated[Path, typer.Argument(help="YAML of the chain's stages.", show_default=False)],
    cluster: Cluster, out: Out, dry_run: DryRun = False, wait: Wait = False, executor: Executor = None,
) -> None:  # fmt: skip
    """Several jobs, each started by the success of the one before: data, midtrain, convert, rl, eval."""
    from common.config import load
    from launch.plan.cluster import ClusterConfig
    from launch.submit.config import ChainConfig
    from launch.submit.submit import plan_chain, site_of

    site = site_of(load(ClusterConfig, cluster))
    planned = plan_chain(load(ChainConfig, stages), stages.parent, out, site)
    _go(planned, site, out, dry_run=dry_run, wait=wait, executor=executor)


@group.command(**example("osim launch status runs/midtrain"))
def status(run: Run) -> None:
    """The state of every job, why it waits, and what its script said last."""
    from launch.submit import follow
    from launch.submit.record import read_record

    record = read_record(run)
    for one in follow.status(record):
        say(one.line())
        if not one.alive and one.outcome:
            say("  " + follow.explain(record.shell, one).replace("\n", "\n  "))


@group.command(**example("osim launch logs runs/midtrain rank0 --lines 50"))
def logs(
    run: Run,
    name: Annotated[str | None, typer.Argument(help="Which log; default: the one written last.")] = None,
    lines: Annotated[int, typer.Option(help="Lines from its end.", min=1)] = 30,
) -> None:
    """The end of a log, and the names of all."""
    from launch.submit import follow
    from launch.submit.record import read_record

    record = read_record(run)
    for log in follow.read_logs(record, name, lines):
        say(f"{log.path}:\n{log.text}")
    if name is None:
        say(f"logs: {', '.join(p.stem for p in follow.log_files(record))}")


@group.command(**example("osim launch cancel runs/midtrain --save"))
def cancel(
    run: Run, save: Annotated[bool, typer.Option("--save", help="Let running jobs save first.")] = False
) -> None:
    """End every job of a run. The same launch goes on later."""
    from launch.submit import follow
    from launch.submit.record import read_record

    for line in follow.cancel(read_record(run), save=save):
        say(line)


def _launch(
    kind: Kind, recipe: Path, cluster: Path, out: Path, overrides: list[str] | None, *, nodes: int | None = None,
    rollout_nodes: int = 0, shards: int = 1, dry_run: bool, wait: bool, executor: Where | None,
) -> None:  # fmt: skip
    from common.config import load
    from launch.plan.cluster import ClusterConfig
    from launch.submit.jobs import Size
    from launch.submit.submit import Request, plan_recipe, site_of

    machines = load(ClusterConfig, cluster)
    size = Size(nodes or machines.nodes, rollout_nodes)
    request = Request(kind, recipe, tuple(overrides or ()), size, shards)
    site = site_of(machines)
    _go(plan_recipe(request, out, site), site, out, dry_run=dry_run, wait=wait, executor=executor)


def _go(
    planned: list[Planned],
    site: Site,
    out: Path,
    *,
    dry_run: bool,
    wait: bool,
    executor: Where | None,
) -> None:
    from common.errors import UsageError
    from launch.submit import follow, local
    from launch.submit import submit as submission

    has_slurm = site.cluster.slurm is not None
    if executor == "slurm" and not has_slurm:
        raise UsageError("the cluster file has no `slurm:`", fix="add it (docs/slurm.md), or use --executor local")
    if dry_run:
        say(submission.dry_run(planned, site), nl=False)
    elif executor == "local" or not has_slurm:
        if code := local.run(planned, out, site.slurm.preflight, say):
            raise typer.Exit(code)
    else:
        record = submission.submit(planned, site, out, say)
        if wait:
            follow.wait(record, lambda one: say(one.line()))
        else:
            say(f"osim launch status {out}  ·  osim launch logs {out}  ·  osim launch cancel {out}")
