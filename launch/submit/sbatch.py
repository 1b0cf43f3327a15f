"""A job as the text of an sbatch script (`job.sh.jinja`). Pure, so that it can be kept as golden text.

What a signal, an exit code and a new checkpoint mean is in the template: B:USR1 before the time limit becomes the
file RUN/stop, the run saves and ends with 4, and the script requeues itself, unless nothing new was saved.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from pathlib import Path

import jinja2

from launch.submit.config import SlurmConfig
from launch.submit.jobs import ARRAY_TASK, NOTES, Component, Job, Step

TOKENS = {NOTES: '"$notes"', ARRAY_TASK: '"$array_task"'}
TEMPLATE = Path(__file__).with_name("job.sh.jinja")
TASK_TEMPLATE = Path(__file__).with_name("task.sh.jinja")


def render(job: Job, slurm: SlurmConfig) -> str:
    """The script. Dependencies are not in it: they are job ids, given on sbatch's command line."""
    checks = [s for s in job.steps if s.role == "check"]
    services = [s for s in job.steps if s.role == "service"]
    (main,) = (s for s in job.steps if s.role == "main")
    return _fill(
        TEMPLATE,
        job,
        slurm,
        directives="\n".join(directives(job, slurm)),
        max_requeues=slurm.max_requeues,
        torchrun=any(s.torchrun for s in job.steps),
        node_list="$SLURM_JOB_NODELIST_HET_GROUP_0" if len(job.components) > 1 else "$SLURM_JOB_NODELIST",
        array=job.array is not None,
        saves_on_request=job.saves_on_request,
        checks=[_named(s, job, slurm) for s in checks],
        services=[_named(s, job, slurm) for s in services],
        main=_named(main, job, slurm),
    )


def render_task(job: Job, slurm: SlurmConfig) -> str:
    """The same processes as one task of a job that somebody else submits (NeMo-Run)."""
    steps = sorted(job.steps, key=lambda s: s.role != "check")
    return _fill(TASK_TEMPLATE, job, slurm, steps=[{"name": s.name, "command": _process(s)} for s in steps])


def _fill(template: Path, job: Job, slurm: SlurmConfig, **values: object) -> str:
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    text = environment.from_string(template.read_text()).render(
        title=f"{job.kind} in {job.run_dir}",
        setup="\n".join(slurm.setup),
        run=_quote(str(job.run_dir)),
        python=_quote(str(slurm.interpreter)),
        workdir=_quote(str(job.workdir)),
        exports="\n".join(f"export {name}={_quote(value)}" for name, value in _variables(slurm).items()),
        **values,
    )
    return text.rstrip("\n") + "\n"


def _process(step: Step) -> str:
    """One process of a step, as a command line of the script."""
    wrapped = f'"$python" -m launch.allocation.rank "$run" "$notes" {step.name}'
    return " ".join([wrapped, step.module, *map(_word, step.arguments)])


def directives(job: Job, slurm: SlurmConfig) -> list[str]:
    """#SBATCH lines; the components of a heterogeneous job are separated by `hetjob`."""
    lines: list[str] = []
    for number, component in enumerate(job.components):
        if number:
            lines.append("#SBATCH hetjob")
        lines += [
            f"#SBATCH --{flag}" if value is None else f"#SBATCH --{flag}={_quote(value)}"
            for flag, value in _flags(job, component, slurm)
        ]
    return lines


def _flags(job: Job, component: Component, slurm: SlurmConfig) -> Iterable[tuple[str, str | None]]:
    log = "%A_%a" if job.array else "%j"
    given: list[tuple[str, str | None]] = [
        ("job-name", f"osim-{job.name}"),
        ("account", slurm.account),
        ("partition", component.partition),
        ("qos", slurm.qos),
        ("constraint", slurm.constraint if component.gpus_per_node else None),
        ("reservation", slurm.reservation),
        ("time", job.time),
        ("nodes", str(component.nodes)),
        ("ntasks-per-node", "1"),
        ("cpus-per-task", str(slurm.cpus_per_rank * component.ranks_per_node) if slurm.cpus_per_rank else None),
        ("mem", slurm.mem),
        ("array", f"0-{job.array - 1}" if job.array else None),
        ("output", str(job.run_dir / "logs" / f"{job.name}-{log}.log")),
        ("open-mode", "append"),
        ("signal", f"B:USR1@{slurm.signal_lead_s}"),
        *slurm.sbatch_flags.items(),
    ]
    yield from ((flag, value) for flag, value in given if value is not None)
    if (count := component.gpus_per_node) and slurm.gpu_flag != "whole-nodes":
        yield ("gpus-per-node", str(count)) if slurm.gpu_flag == "gpus-per-node" else ("gres", f"gpu:{count}")
    if slurm.exclusive and component.ranks_per_node > 1:
        yield "exclusive", None
    yield "requeue", None


def _variables(slurm: SlurmConfig) -> dict[str, str]:
    """Of every task. The checkout comes first on Python's path, so that the code is the one that was named."""
    threads = str(slurm.cpus_per_rank or 1)
    return {
        "PYTHONPATH": str(slurm.code),
        "PYTHONUNBUFFERED": "1",
        "OMP_NUM_THREADS": threads,
        **slurm.environment,
    }


def _named(step: Step, job: Job, slurm: SlurmConfig) -> dict[str, str]:
    return {"name": step.name, "srun": " \\\n    ".join(srun(step, job, slurm))}


def srun(step: Step, job: Job, slurm: SlurmConfig) -> list[str]:
    """The command line of one step, a line of the script each."""
    per_node = 1 if step.torchrun else step.per_node
    flags = [f"--het-group={step.component}"] if len(job.components) > 1 else []
    flags += [f"--nodes={step.nodes}", f"--ntasks={step.nodes * per_node}", f"--ntasks-per-node={per_node}"]
    if slurm.cpus_per_rank:  # srun does not take it from sbatch
        flags.append(f"--cpus-per-task={slurm.cpus_per_rank * (step.per_node if step.torchrun else 1)}")
    if step.overlap:
        flags.append("--overlap")
    # A lost server takes none of the others with it, whatever the site's default is.
    flags.append(f"--kill-on-bad-exit={int(step.role != 'service')}")
    lines = ["srun " + " ".join(flags)]
    # One file a node, for what is not a rank's own output.
    lines.append(f'--output="$run/logs/{step.name}-step-%N.log" --open-mode=append')
    lines += _container(job, slurm)
    command = _process(step)
    if step.torchrun:
        port = '"$MASTER_PORT"' if step.role == "check" else '"$((MASTER_PORT + 1))"'
        lines.append(f'"$python" -m launch.allocation.torchrun {step.nodes} {step.per_node} "$MASTER_ADDR" {port}')
        command = command.partition("-m ")[2]
    lines.append(command)
    return lines


def mounts(job: Job, slurm: SlurmConfig) -> list[str]:
    """SRC:DST[:ro] of a containered task: the site's, the code, where the recipe's paths start, the run folder."""
    if slurm.container is None:
        return []
    own = dict.fromkeys(
        [f"{slurm.code}:{slurm.code}:ro", f"{job.workdir}:{job.workdir}", f"{job.run_dir}:{job.run_dir}"]
    )
    if job.workdir == slurm.code:
        del own[f"{job.workdir}:{job.workdir}"]
    return [*slurm.container.mounts, *own]


def _container(job: Job, slurm: SlurmConfig) -> list[str]:
    container = slurm.container
    if container is None:
        return []
    # The image's own values of these would win otherwise.
    kept = ["MASTER_ADDR", "MASTER_PORT", *_variables(slurm)]
    return [
        f"--container-image={_quote(container.image)}",
        f"--container-mounts={_quote(','.join(mounts(job, slurm)))}",
        f"--container-workdir={_quote(str(job.workdir))} --no-container-mount-home",
        f"--container-env={','.join(kept)}",
    ]


def _word(argument: str) -> str:
    """An argument as a word of the script; what only the running job knows is left to its shell."""
    for token, variable in TOKENS.items():
        before, found, after = argument.partition(token)
        if found:
            return f"{_quote(before) if before else ''}{variable}{_quote(after) if after else ''}"
    return _quote(argument)


def _quote(text: str) -> str:
    return shlex.quote(text)
