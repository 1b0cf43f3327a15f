"""`osim launch`: recipes to jobs, jobs to Slurm, and a record of it. Runs in the process of the command.

What can be seen to be wrong is refused before anything is written. Then, in this order: the recipe and the script go
to each run folder, the jobs are submitted one by one with their dependencies, the record is written after each. A
refusal or Ctrl-C half-way cancels what was submitted before it, so that a chain is there as a whole or not at all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import BaseModel

from common.config import dump_yaml, validate
from common.errors import GateError, OsimError, UsageError
from launch.allocation.config import FILE, FOLDER, RECIPE, AllocationConfig
from launch.kinds import RECIPE_OF, load_recipe
from launch.plan.cluster import ClusterConfig
from launch.plan.report import Report
from launch.submit import nemo, slurm
from launch.submit.config import ChainConfig, Kind, SlurmConfig, StageConfig
from launch.submit.follow import refuse_second
from launch.submit.jobs import Job, Site, Size, build, convert_job, servers_per_node
from launch.submit.record import Record, SubmittedJob, write_record
from launch.submit.sbatch import render, render_task
from launch.submit.shell import LocalShell, Shell, ShellError, SshShell
from megatron_osim.config import ArchitectureConfig, MidtrainConfig
from rl.config import RLConfig

Say = Callable[[str], None]


@dataclass(frozen=True)
class Planned:
    """One job, not yet submitted."""

    job: Job
    recipe: BaseModel | None
    script: str
    backend: nemo.Choice

    @property
    def script_path(self) -> Path:
        return self.job.run_dir / FOLDER / f"{self.job.name}.sh"


@dataclass(frozen=True)
class Request:
    """One recipe to launch."""

    kind: Kind
    recipe: Path
    overrides: tuple[str, ...]
    size: Size | None = None
    shards: int = 1


def site_of(cluster: ClusterConfig) -> Site:
    """Where jobs of this cluster file go. Without `slurm:` the site is this machine."""
    settings = cluster.slurm or SlurmConfig(gpu_flag="none")
    return Site(cluster, settings, settings.code if settings.host else Path.cwd())


def shell_of(site: Site) -> Shell:
    """The machine that has sbatch."""
    return (
        SshShell(site.slurm.host, site.slurm.login_setup, site.slurm.ssh_config) if site.slurm.host else LocalShell()
    )


def run_dir(site: Site, out: Path) -> Path:
    """The run folder on the machine that runs it."""
    if site.slurm.host is None:
        return out.absolute()
    assert site.slurm.run_root is not None
    return site.slurm.run_root / out.name


def plan_recipe(request: Request, out: Path, site: Site) -> list[Planned]:
    """The jobs of one recipe. Raises what is wrong with it."""
    recipe = load_recipe(RECIPE_OF[request.kind], request.recipe, request.overrides)
    folder = run_dir(site, out)
    size = request.size or _default_size(request.kind, site)
    if site.slurm.host is None:
        _check_inputs(recipe)
    _check_fits(recipe, site, size)
    jobs = build(request.kind, out.name, recipe, folder, site, size, request.shards, site.slurm.time)
    return [_planned(job, recipe, site) for job in jobs]


def plan_chain(chain: ChainConfig, where: Path, out: Path, site: Site) -> list[Planned]:
    """The jobs of a chain; `where` is the folder that its recipes are relative to."""
    root = run_dir(site, out)
    planned: list[Planned] = []
    ends: dict[str, str] = {}
    recipes: dict[str, BaseModel | None] = {}
    for number, stage in enumerate(chain.stages):
        previous = (chain.stages[number - 1].name,) if number else ()
        after = tuple(ends[name] for name in (previous if stage.after is None else stage.after))
        recipe = _stage_recipe(stage, where, root)
        recipes[stage.name] = recipe
        jobs = _stage_jobs(stage, recipe, recipes, root, site)
        for job in jobs:
            chained = job if job.after else replace(job, after=after)
            planned.append(_planned(chained, recipe, site))
        ends[stage.name] = jobs[-1].name
    return planned


def _stage_recipe(stage: StageConfig, where: Path, root: Path) -> BaseModel | None:
    if stage.recipe is None:
        return None
    overrides = [text.replace("{root}", str(root)) for text in stage.set]
    return load_recipe(RECIPE_OF[stage.kind], where / stage.recipe, overrides)


def _stage_jobs(
    stage: StageConfig, recipe: BaseModel | None, recipes: Mapping[str, BaseModel | None], root: Path, site: Site
) -> tuple[Job, ...]:
    site = _with_time(site, stage)
    time, folder = site.slurm.time, root / stage.name
    if recipe is None:
        assert stage.source is not None
        source = recipes[stage.source]
        tensor = source.parallel.tensor if isinstance(source, MidtrainConfig | RLConfig) else 1
        return (convert_job(stage.name, root / stage.source, folder, site, tensor, time),)
    size = Size(stage.nodes or _default_size(stage.kind, site).nodes, stage.rollout_nodes)
    _check_fits(recipe, site, size)
    return build(stage.kind, stage.name, recipe, folder, site, size, stage.shards, time)


def _with_time(site: Site, stage: StageConfig) -> Site:
    """The site with the stage's own limit. Raises ConfigError for one that leaves no room for the signal."""
    if stage.time is None:
        return site
    settings = site.slurm.model_dump() | {"time": stage.time}
    return replace(site, slurm=validate(SlurmConfig, settings, where=f"stage {stage.name}"))


def _planned(job: Job, recipe: BaseModel | None, site: Site) -> Planned:
    backend = nemo.choose(job, site.slurm)
    script = render_task(job, site.slurm) if backend.nemo_run else render(job, site.slurm)
    return Planned(job, recipe, script, backend)


def _default_size(kind: Kind, site: Site) -> Size:
    return Size(site.cluster.nodes if kind in ("midtrain", "rl") else 1)


def _check_inputs(recipe: BaseModel) -> None:
    """What the recipe names and this machine can see. Opens index files only."""
    if isinstance(recipe, MidtrainConfig):
        from launch.training import check_shards

        check_shards(recipe)
    elif isinstance(recipe, RLConfig) and not _is_here(recipe.model):
        raise UsageError("no Hugging Face model here", where=str(recipe.model), fix="give the folder of an export")


def _check_fits(recipe: BaseModel, site: Site, size: Size) -> None:
    """Refuse what the planner says cannot run (exit 3). It knows GPUs only, and models that are on this machine."""
    if site.slurm.gpu_flag == "none" or (report := _plan(recipe, site, size)) is None or not report.refused:
        return
    changes = [one.text(site.cluster) for one in report.alternatives[:3]]
    raise GateError(
        "it cannot run on this cluster\n" + "\n".join(f"  - {problem}" for problem in report.problems),
        where="plan",
        fix="; or ".join(changes) or "osim plan shows what it needs",
    )


def _plan(recipe: BaseModel, site: Site, size: Size) -> Report | None:
    own = site.cluster.model_copy(update={"slurm": site.slurm})
    if isinstance(recipe, MidtrainConfig) and (recipe.architecture or _is_here(recipe.init_from)):
        from launch.plan.midtrain import plan_midtrain

        return plan_midtrain(recipe, own.model_copy(update={"nodes": size.nodes})).report
    if isinstance(recipe, RLConfig) and size.rollout_nodes and _is_here(recipe.model):
        from launch.plan.rl import plan_rl

        servers = size.rollout_nodes * servers_per_node(recipe, site)
        rollout = recipe.rollout.model_copy(update={"servers": servers})
        cluster = own.model_copy(update={"nodes": size.nodes + size.rollout_nodes})
        architecture = ArchitectureConfig.from_hf_config(recipe.model)
        return plan_rl(recipe.model_copy(update={"rollout": rollout}), cluster, architecture).report
    return None


def _is_here(model: Path | None) -> bool:
    return model is not None and (model / "config.json").is_file()


def dry_run(planned: Sequence[Planned], site: Site) -> str:
    """Exactly what would be submitted, and how."""
    texts = []
    for one in planned:
        after = [f"<job id of {name}>" for name in one.job.after]
        if one.backend.nemo_run:
            wrapper = nemo.preview(one.job, site.slurm, one.script_path, after)
            texts.append(
                f"# {one.job.name}: {one.backend.line}\n# what NeMo-Run submits\n{wrapper}\n"
                f"# {one.script_path}, which it runs\n{one.script}"
            )
            continue
        command = " ".join(slurm.sbatch_command(one.script_path, after))
        texts.append(f"# {one.job.name}: {one.backend.line}\n# {command}\n{one.script}")
    return "\n".join(texts)


def submit(planned: Sequence[Planned], site: Site, out: Path, say: Say) -> Record:
    """Write, submit, record. Raises UsageError when a job of this folder is still alive, or Slurm refuses one."""
    shell = shell_of(site)
    refuse_second(out)
    for one in planned:
        _write(one, site, shell)
    submitted: list[SubmittedJob] = []
    ids: dict[str, str] = {}
    record = Record(host=site.slurm.host, login_setup=site.slurm.login_setup, ssh_config=site.slurm.ssh_config)
    try:
        for one in planned:
            job_id = _submit_one(one, site, shell, [ids[name] for name in one.job.after])
            ids[one.job.name] = job_id
            submitted.append(_recorded(one, job_id))
            record = record.model_copy(update={"jobs": tuple(submitted)})
            _write_records(record, out, site)
            say(f"{one.job.name}: job {job_id} ({one.backend.line})")
    except (OsimError, KeyboardInterrupt):
        _withdraw(shell, list(ids.values()), say)
        raise
    return record


def _withdraw(shell: Shell, job_ids: list[str], say: Say) -> None:
    """Cancel what was submitted of a chain that is not there as a whole, or say what could not be cancelled."""
    try:
        slurm.cancel(shell, job_ids)
    except ShellError as e:
        say(f"not cancelled ({e.what}): scancel {' '.join(job_ids)}")
    else:
        if job_ids:
            say(f"cancelled: job {', job '.join(job_ids)}")
    say("squeue --me shows whether a submission that was cut short got through")


def _write(one: Planned, site: Site, shell: Shell) -> None:
    folder = one.job.run_dir / FOLDER
    if one.recipe is not None:
        shell.write(folder / RECIPE, dump_yaml(one.recipe))
        gpus = one.job.components[0].gpus_per_node
        allocation = AllocationConfig(kind=one.job.kind, gpus_per_node=gpus, preflight=site.slurm.preflight)
        shell.write(folder / FILE, allocation.model_dump_json(indent=2) + "\n")
    shell.write(one.script_path, one.script)
    # sbatch opens the job's output before the script can make its folder.
    shell.run(["mkdir", "-p", str(one.job.run_dir / "logs")])


def _submit_one(one: Planned, site: Site, shell: Shell, after: Sequence[str]) -> str:
    if one.backend.nemo_run:
        return nemo.submit(one.job, site.slurm, one.script_path, after)
    return slurm.submit(shell, one.script_path, after)


def _recorded(one: Planned, job_id: str) -> SubmittedJob:
    return SubmittedJob(
        name=one.job.name,
        kind=one.job.kind,
        run_dir=one.job.run_dir,
        job_id=job_id,
        backend="nemo-run" if one.backend.nemo_run else "sbatch",
        script=one.script_path,
    )


def _write_records(record: Record, out: Path, site: Site) -> None:
    """The whole record where the user named it; on this machine also each stage's own in its run folder."""
    write_record(out, record)
    if site.slurm.host is not None:
        return
    for folder in {job.run_dir for job in record.jobs} - {out.absolute()}:
        own = tuple(job for job in record.jobs if job.run_dir == folder)
        write_record(folder, record.model_copy(update={"jobs": own}))
