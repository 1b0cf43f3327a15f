"""What a site is (`slurm:` of a cluster file) and what a chain of jobs is. Closed configuration, no heavy import."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from common.config import Config

ROOT = Path(__file__).resolve().parents[2]
Kind = Literal["data", "midtrain", "convert", "rl", "eval"]
TIME = re.compile(r"(?:(\d+)-)?(\d{1,2}):(\d{2}):(\d{2})")
HOST = r"^[A-Za-z0-9_][A-Za-z0-9_.@:%-]*$"
"""USER@MACHINE; a name that begins with a dash would be an option of ssh."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
FLAG = re.compile(r"[a-z][a-z-]*")


def time_s(text: str) -> int:
    """Seconds of Slurm's [D-]HH:MM:SS; ValueError otherwise."""
    match = TIME.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not [days-]hours:minutes:seconds, e.g. 04:00:00 or 1-12:00:00")
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def _is_time(text: str) -> str:
    time_s(text)
    return text


class ContainerConfig(Config):
    """A container for every task (Pyxis: srun --container-image). The batch script itself runs outside of it."""

    image: str
    """Image or squashfs file; a digest pins it: nvcr.io#nvidia/pytorch@sha256:…"""
    mounts: tuple[str, ...] = ()
    """SRC:DST[:ro], DST as the job names it. The code and the run folder are mounted anyway, at their own paths."""
    python: Path = Path("/usr/bin/python3")
    """Interpreter inside the image that has osim's packages."""


class PreflightConfig(Config):
    """What must hold on the allocation before the expensive part starts. A bound of None is not checked."""

    enabled: bool = True
    """False: start at once."""
    min_allreduce_gb_per_s: float | None = Field(default=None, gt=0)
    """Bus bandwidth of an all-reduce over all ranks. None: NCCL 20 over several nodes, 100 within one; gloo 0.005."""
    allreduce_mib: int = Field(default=256, ge=1)
    """Size of the timed message with NCCL; gloo uses a sixteenth."""
    min_disk_free_gib: float | None = Field(default=None, ge=0)
    """None: what the checkpoints need that are kept, one more, less those that are there."""
    min_disk_mib_per_s: float | None = Field(default=20.0, gt=0)
    """Writing (with fsync) and reading in the run folder, one node at a time."""
    disk_mib: int = Field(default=256, ge=1)
    """Size of the file that is written and read."""
    checksum_gib: float = Field(default=64.0, ge=0)
    """Data whose checksums are recomputed, over all nodes together; of what exceeds it, sizes only. Once a run."""
    endpoint_timeout_s: float = Field(default=10.0, gt=0)
    """Longest wait for an endpoint's answer."""
    timeout_s: float = Field(default=900.0, gt=0)
    """Longest time for all of it."""


class SlurmConfig(Config):
    """One site: its queues, limits and habits."""

    host: str | None = Field(default=None, pattern=HOST)
    """USER@LOGIN-NODE for submission over SSH; None: this machine is a login node."""
    ssh_config: Path | None = None
    """Configuration file for ssh instead of your own (~/.ssh/config)."""
    login_setup: tuple[str, ...] = ()
    """Shell lines before each Slurm command over SSH, e.g. `module load slurm`."""
    code: Path = ROOT
    """Checkout of osim that the nodes see."""
    python: Path | None = None
    """Interpreter on the nodes; None: CODE/.venv/bin/python. Inside a container, container.python."""
    run_root: Path | None = None
    """Over SSH: folder on the cluster for run folders; --out names the folder in it."""
    submit: Literal["auto", "nemo-run", "sbatch"] = "auto"
    """auto: NeMo-Run where it can express the job and reports its true end (docs/slurm.md), else our own script."""
    account: str | None = None
    """Slurm's --account."""
    partition: str | None = None
    """Slurm's --partition."""
    cpu_partition: str | None = None
    """Partition without GPUs for work that needs none: data, conversion, the RL coordinator. None: `partition`."""
    qos: str | None = None
    """Slurm's --qos."""
    constraint: str | None = None
    """Slurm's --constraint."""
    reservation: str | None = None
    """Slurm's --reservation."""
    time: Annotated[str, AfterValidator(_is_time)] = "04:00:00"
    """Wall-time limit of one attempt: [days-]hours:minutes:seconds."""
    signal_lead_s: int = Field(default=300, ge=10)
    """How long before the limit the run is told to save and end. Slurm may be a minute early or late."""
    max_requeues: int = Field(default=20, ge=0)
    """Attempts after the first. An attempt that saved nothing new is never repeated."""
    gpu_flag: Literal["gpus-per-node", "gres", "whole-nodes", "none"] = "gpus-per-node"
    """How GPUs are asked for. whole-nodes: not at all, a node comes with all it has; none: nodes without GPUs."""
    ranks_per_node: int | None = Field(default=None, ge=1)
    """Training processes per node; None: gpus_per_node."""
    cpus_per_rank: int | None = Field(default=None, ge=1)
    """CPU cores of each training process; None: Slurm's default."""
    exclusive: bool = True
    """Ask for whole nodes."""
    mem: str | None = None
    """Memory per node as Slurm writes it; "0" is all of it."""
    container: ContainerConfig | None = None
    environment: dict[str, str] = Field(default_factory=dict)
    """Variables of every task: NCCL and site settings. Never secrets: export those where you submit."""
    setup: tuple[str, ...] = ()
    """Shell lines at the start of the job script, e.g. `module load cuda`."""
    sbatch_flags: dict[str, str] = Field(default_factory=dict)
    """Any other sbatch option, e.g. {comment: soul}."""
    preflight: PreflightConfig = PreflightConfig()

    @model_validator(mode="after")
    def _check(self) -> SlurmConfig:
        wrong = [
            f"environment: {name!r} is no variable name" for name in self.environment if not VARIABLE.fullmatch(name)
        ]
        wrong += [
            f"sbatch_flags: {name!r} is no long option" for name in self.sbatch_flags if not FLAG.fullmatch(name)
        ]
        secret = [name for name in self.environment if re.search(r"(KEY|TOKEN|SECRET|PASSWORD)$", name)]
        wrong += [f"environment: {name} looks like a secret; export it where you submit instead" for name in secret]
        if time_s(self.time) < 2 * self.signal_lead_s:
            wrong.append(f"time {self.time} is less than twice signal_lead_s ({self.signal_lead_s})")
        if self.host and self.run_root is None:
            wrong.append("host needs run_root, the folder on the cluster for run folders")
        if wrong:
            raise ValueError("; ".join(wrong))
        return self

    @property
    def interpreter(self) -> Path:
        """What the tasks run."""
        return self.container.python if self.container else self.python or self.code / ".venv" / "bin" / "python"


class StageConfig(Config):
    """One job of a chain."""

    name: str
    """Its run folder is {root}/NAME."""
    kind: Kind
    """Which command it is."""
    recipe: Path | None = None
    """Relative to the chain's file. Not for convert."""
    set: tuple[str, ...] = ()
    """Overrides key.path=value. {root} is the chain's folder: {root}/midtrain/hf is the export of stage midtrain."""
    after: tuple[str, ...] | None = None
    """Stages that must have succeeded; None: the one before."""
    nodes: int | None = Field(default=None, ge=1)
    """None: all of the cluster for training, one for the rest."""
    rollout_nodes: int = Field(default=0, ge=0)
    """rl: nodes of their own for the rollout servers."""
    shards: int = Field(default=1, ge=1)
    """data: independent jobs of an array, joined by a last one."""
    source: str | None = None
    """convert: name of the stage whose checkpoint is exported to {root}/NAME/hf."""
    time: Annotated[str, AfterValidator(_is_time)] | None = None
    """Wall-time limit; None: the cluster file's."""

    @model_validator(mode="after")
    def _check(self) -> StageConfig:
        if not NAME.fullmatch(self.name):
            raise ValueError(f"name {self.name!r}: letters, digits, dot, dash and underscore only")
        if (self.kind == "convert") != (self.recipe is None):
            raise ValueError("every stage but convert has a recipe")
        if (self.kind == "convert") != (self.source is not None):
            raise ValueError("convert, and only convert, names its source stage")
        if self.rollout_nodes and self.kind != "rl":
            raise ValueError("rollout_nodes belong to rl")
        if self.shards > 1 and self.kind != "data":
            raise ValueError("shards belong to data")
        return self


class ChainConfig(Config):
    """Jobs that follow one another, each started by the success of those before it."""

    stages: tuple[StageConfig, ...] = Field(min_length=1)
    """The jobs, in order."""

    @model_validator(mode="after")
    def _check(self) -> ChainConfig:
        seen: list[str] = []
        for stage in self.stages:
            if stage.name in seen:
                raise ValueError(f"two stages are named {stage.name!r}")
            for name in (*(stage.after or ()), *((stage.source,) if stage.source else ())):
                if name not in seen:
                    raise ValueError(f"{stage.name}: {name!r} is no earlier stage")
            seen.append(stage.name)
        return self
