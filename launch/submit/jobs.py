"""Recipes become jobs: which nodes, which processes, in which order. Pure: no file is written, nothing is run.

A job is one submission. Its `components` are what Slurm allocates (more than one: a heterogeneous job); its `steps`
are what runs there: checks first, then services (they end with the main step), then the main step, whose end decides.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel

from common.errors import ConfigError, UsageError
from data_tools.config import PrepareConfig
from launch.allocation.config import recipe_of
from launch.evaluation import EvalRunConfig
from launch.kinds import midtrain_worker
from launch.plan.cluster import ClusterConfig
from launch.submit.config import Kind, SlurmConfig
from megatron_osim.config import ArchitectureConfig, MidtrainConfig
from megatron_osim.layout import Capability, check_layout
from rl.config import RLConfig

NOTES = "{notes}"
"""In a command: the folder of this attempt's notes, which only the running job knows."""
ARRAY_TASK = "{array_task}"
SERVICES = SERVER, COORDINATOR = ("server", "coordinator")
"""Names of the steps that end with the main one."""


@dataclass(frozen=True)
class Component:
    """Nodes of one kind."""

    nodes: int
    ranks_per_node: int
    gpus_per_node: int
    partition: str | None


@dataclass(frozen=True)
class Step:
    """Processes of one kind on one component."""

    name: str
    module: str
    arguments: tuple[str, ...]
    role: Literal["check", "service", "main"] = "main"
    component: int = 0
    per_node: int = 1
    """Processes on each node."""
    nodes: int = 1
    torchrun: bool = False
    """They are the ranks of one torch job."""
    overlap: bool = False
    """They share the component's resources with another step."""


@dataclass(frozen=True)
class Job:
    """One submission."""

    name: str
    kind: Kind
    run_dir: Path
    components: tuple[Component, ...]
    steps: tuple[Step, ...]
    time: str
    workdir: Path
    """Where the recipe's relative paths start."""
    array: int | None = None
    """Number of independent tasks."""
    saves_on_request: bool = False
    """The main step polls RUN/stop, saves and exits 4; others are ended and go on from what they have finished."""
    after: tuple[str, ...] = ()
    """Names of the jobs of the same submission that must have succeeded."""

    @property
    def one_process(self) -> bool:
        """Nothing but single processes on one node, and nothing that saves on request."""
        one = self.components[0]
        return len(self.components) == 1 and one.nodes == 1 and self.array is None and not self.saves_on_request


@dataclass(frozen=True)
class Size:
    """How many nodes."""

    nodes: int
    rollout_nodes: int = 0


@dataclass(frozen=True)
class Site:
    """Where jobs go: hardware and queues."""

    cluster: ClusterConfig
    slurm: SlurmConfig
    workdir: Path

    @property
    def gpus_per_node(self) -> int:
        return 0 if self.slurm.gpu_flag == "none" else self.cluster.gpus_per_node

    @property
    def ranks_per_node(self) -> int:
        return self.slurm.ranks_per_node or self.cluster.gpus_per_node

    def gpu_nodes(self, nodes: int, ranks_per_node: int | None = None) -> Component:
        return Component(nodes, ranks_per_node or self.ranks_per_node, self.gpus_per_node, self.slurm.partition)

    def cpu_node(self) -> Component:
        return Component(1, 1, 0, self.slurm.cpu_partition or self.slurm.partition)


def midtrain_job(name: str, config: MidtrainConfig, run: Path, site: Site, size: Size, time: str) -> Job:
    """Ranks of one torch job on all nodes. Raises ConfigError for an illegal layout."""
    # The weights to start from may be on the cluster only, or made by an earlier job: then the worker checks.
    if config.architecture or (config.init_from and (config.init_from / "config.json").is_file()):
        check_layout(
            config.resolve_architecture(),
            config.parallel,
            world_size=size.nodes * site.ranks_per_node,
            capability=_capability(site),
            global_batch=config.global_batch,
            fp8=config.fp8,
        )
    main = _ranks("rank", midtrain_worker(config), (str(run),), site, size)
    return Job(
        name,
        "midtrain",
        run,
        (site.gpu_nodes(size.nodes),),
        (_check(run, site, size), main),
        time,
        site.workdir,
        None,
        True,
    )


def rl_job(name: str, config: RLConfig, run: Path, site: Site, size: Size, time: str) -> Job:
    """Actor ranks; SGLang servers on nodes of their own (heterogeneous) or on the actor's; a coordinator for them.

    With the embedded engine there are no servers, and the engine lives in rank 0.
    """
    if (config.model / "config.json").is_file():
        architecture = ArchitectureConfig.from_hf_config(config.model)
        ranks = size.nodes * site.ranks_per_node
        check_layout(architecture, config.parallel, world_size=ranks, capability=_capability(site))
    actors, check = site.gpu_nodes(size.nodes), _check(run, site, size)
    if config.rollout.kind == "embedded" or config.rollout.urls:
        if size.rollout_nodes:
            why = "its engine is embedded" if not config.rollout.urls else "its servers are given by URL"
            raise UsageError(f"rollout nodes for a run that starts no server: {why}", fix="leave out --rollout-nodes")
        main = _ranks("rank", "rl.worker", (str(run),), site, size)
        return Job(name, "rl", run, (actors,), (check, main), time, site.workdir, None, True)
    per_node = servers_per_node(config, site)
    apart = bool(size.rollout_nodes)
    hosts = size.rollout_nodes if apart else size.nodes
    servers = Step(
        SERVER,
        "launch.allocation.server",
        (str(run), NOTES, str(hosts * per_node)),
        "service",
        component=1 if apart else 0,
        per_node=per_node,
        nodes=hosts,
        overlap=not apart,
    )
    own_node = apart and site.slurm.cpu_partition is not None
    coordinator = Step(
        COORDINATOR,
        "launch.allocation.coordinator",
        (str(run), NOTES, str(hosts * per_node)),
        "service",
        component=2 if own_node else 0,
        overlap=not own_node,
    )
    main = _ranks("rank", "launch.allocation.actor", (str(run), NOTES), site, size)
    components = (
        actors,
        *((site.gpu_nodes(hosts, per_node),) if apart else ()),
        *((site.cpu_node(),) if own_node else ()),
    )
    return Job(name, "rl", run, components, (check, servers, coordinator, main), time, site.workdir, None, True)


def eval_job(name: str, config: EvalRunConfig, run: Path, site: Site, time: str) -> Job:
    """One process that starts its own engine."""
    main = Step("rank", "launch", ("eval", "run", "--recipe", str(recipe_of(run)), "--out", str(run)))
    return Job(name, "eval", run, (site.gpu_nodes(1, 1),), (_check(run, site), main), time, site.workdir)


def data_jobs(name: str, config: PrepareConfig, run: Path, site: Site, shards: int, time: str) -> tuple[Job, ...]:
    """One process, or an array of them and the one that joins their outputs."""
    recipe = ("data", "prepare", "--recipe", str(recipe_of(run)))
    node, check = (site.cpu_node(),), _check(run, site)
    if shards == 1:
        return (Job(name, "data", run, node, (check, Step("rank", "launch", recipe)), time, site.workdir),)
    parts = [part_of(config.output, n) for n in range(shards)]
    one = (*recipe, f"shard_jobs={shards}", f"shard_job={ARRAY_TASK}", f"output={part_of(config.output, ARRAY_TASK)}")
    join = ("data", "merge", *map(str, parts), "--output", str(config.output), "--overwrite")
    return (
        Job(name, "data", run, node, (check, Step("rank", "launch", one)), time, site.workdir, array=shards),
        Job(f"{name}-merge", "data", run, node, (Step("merge", "launch", join),), time, site.workdir, after=(name,)),
    )


def part_of(output: Path, number: int | str) -> Path:
    """PREFIX of one array task's output."""
    return output.with_name(f"{output.name}.part-{number}")


def convert_job(name: str, source: Path, run: Path, site: Site, tensor: int, time: str) -> Job:
    """Export of a run's newest checkpoint to RUN/hf."""
    main = Step(
        "rank", "launch", ("convert", "megatron-to-hf", str(source), str(run / "hf"), "--tensor", str(tensor))
    )
    return Job(name, "convert", run, (site.gpu_nodes(1, 1),), (main,), time, site.workdir)


def build(
    kind: Kind, name: str, recipe: BaseModel, run: Path, site: Site, size: Size, shards: int, time: str
) -> tuple[Job, ...]:
    """The jobs of one recipe."""
    match recipe:
        case MidtrainConfig():
            return (midtrain_job(name, recipe, run, site, size, time),)
        case RLConfig():
            return (rl_job(name, recipe, run, site, size, time),)
        case EvalRunConfig():
            return (eval_job(name, recipe, run, site, time),)
        case PrepareConfig():
            return data_jobs(name, recipe, run, site, shards, time)
    raise UsageError(f"{kind} has no recipe that can be launched")


def _ranks(name: str, module: str, arguments: tuple[str, ...], site: Site, size: Size) -> Step:
    return Step(name, module, arguments, per_node=site.ranks_per_node, nodes=size.nodes, torchrun=True)


def _check(run: Path, site: Site, size: Size | None = None) -> Step:
    """Preparation of the run folder and the checks before the expensive part; over all ranks for training."""
    ranks = _ranks("preflight", "launch.allocation.preflight", (str(run), NOTES), site, size or Size(1))
    if size is None:
        return Step("preflight", ranks.module, ranks.arguments, "check")
    return Step("preflight", ranks.module, ranks.arguments, "check", 0, ranks.per_node, ranks.nodes, torchrun=True)


def servers_per_node(config: RLConfig, site: Site) -> int:
    """Rollout servers of one node: as many as its GPUs allow; as the recipe says where there are none."""
    if not site.gpus_per_node:
        return config.rollout.servers
    if site.gpus_per_node % config.rollout.tensor_parallel:
        raise ConfigError(
            [f"{site.gpus_per_node} GPUs of a node do not split into servers of {config.rollout.tensor_parallel}"],
            where="rollout.tensor_parallel",
        )
    return site.gpus_per_node // config.rollout.tensor_parallel


def _capability(site: Site) -> Capability:
    """What the nodes can run; Transformer Engine is assumed where there are GPUs."""
    has_gpus = site.slurm.gpu_flag != "none"
    return Capability(cuda=has_gpus, transformer_engine=has_gpus)
