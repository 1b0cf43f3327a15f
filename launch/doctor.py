"""What this machine has and lacks, each line with its version or its fix.

Runs in the process of the command and changes nothing; offline except for one bounded request to the configured judge
endpoint. Imports no heavy library (torch is asked in a child process). A check never raises: what it cannot find out
is a finding.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from common.redact import redact
from launch.environments import version_in

State = Literal["ok", "missing", "absent"]
PYTHON_VERSIONS = ((3, 11), (3, 12))
PARTITION = re.compile(r"([^|*]+)\*?\|([0-9]{1,9})\|([^|]*)\|([^|]*)")
JOB_FIELDS = 6
REQUIRED_PACKAGES = ("megatron-core", "transformers", "tokenizers", "safetensors", "numpy", "pyarrow")
"""Beside torch, what the CPU pipeline cannot do without."""
PROBE_TIMEOUT_S = 60.0
JUDGE_TIMEOUT_S = 5.0
MIN_DISK_GIB = 5.0
MIN_MEMORY_GIB = 12.0
GIB = 2**30
INSTALL = "make setup, or pip install -c constraints.txt -e '.[train]'"
TORCH_PROBE = """
import json, torch
cuda = torch.cuda.is_available()
gpus = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())] if cuda else []
print(json.dumps({
    "version": torch.__version__,
    "gloo": torch.distributed.is_available() and torch.distributed.is_gloo_available(),
    "gpus": [[g.name, g.total_memory, g.major, g.minor] for g in gpus],
}))
"""


@dataclass(frozen=True)
class Finding:
    """One line of the report. `missing`: even CPU runs need it; `absent`: only some work needs it."""

    subject: str
    state: State
    detail: str
    fix: str = ""


def examine(folder: Path) -> Iterator[Finding]:
    """All findings, in the order of the report; `folder` is where runs will be written."""
    yield _python()
    torch = _ask_torch()
    yield _torch(torch)
    for name in REQUIRED_PACKAGES:
        yield _package(name)
    gpus: list[Any] = torch.get("gpus", [])
    yield _gpus(gpus)
    yield _transformer_engine(bool(gpus))
    yield _apex()
    yield _sglang(bool(gpus))
    slurm = _slurm()
    yield slurm
    if slurm.state == "ok":
        yield _can_submit_containers()
        yield from _slurm_jobs()
    yield _nemo_run()
    yield _judge()
    yield _disk(folder)
    yield _memory()


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] in PYTHON_VERSIONS:
        return Finding("Python", "ok", version)
    return Finding("Python", "missing", version, "use Python 3.11 or 3.12: make setup PYTHON=/path/to/python3.11")


def _ask_torch() -> dict[str, Any]:
    """What torch says of itself, from a child process; {"error": …} when it cannot be imported."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", TORCH_PROBE], capture_output=True, text=True, timeout=PROBE_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return {"error": f"importing it took more than {PROBE_TIMEOUT_S:.0f} s"}
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or ["it cannot be imported"])[-1]}
    return json.loads(done.stdout.splitlines()[-1])


def _torch(answer: dict[str, Any]) -> Finding:
    if "error" in answer:
        return Finding("torch", "missing", str(answer["error"]), INSTALL)
    if not answer["gloo"]:
        return Finding("torch", "missing", f"{answer['version']} without gloo", "install a torch build with gloo")
    return Finding("torch", "ok", f"{answer['version']}, gloo")


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _package(name: str) -> Finding:
    version = _version(name)
    return Finding(name, "ok", version) if version else Finding(name, "missing", "not installed", INSTALL)


def _gpus(gpus: list[tuple[str, int, int, int]]) -> Finding:
    if gpus:
        name, memory, major, minor = gpus[0]
        return Finding("GPUs", "ok", f"{len(gpus)} x {name}, {memory / GIB:.0f} GiB, sm_{major}{minor}")
    if shutil.which("nvidia-smi"):
        return Finding("GPUs", "absent", "nvidia-smi is here but torch sees none", "install a CUDA build of torch")
    return Finding("GPUs", "absent", "none: everything runs on the CPU over gloo")


def _transformer_engine(has_gpu: bool) -> Finding:
    version = _version("transformer-engine")
    if version:
        return Finding("Transformer Engine", "ok", version)
    fix = "pip install --no-build-isolation -e '.[gpu]'" if has_gpu else ""
    return Finding("Transformer Engine", "absent", "not installed: Megatron's local layers are used", fix)


def _apex() -> Finding:
    """NVIDIA's apex and the unrelated package of that name in the registry are told apart by their content."""
    spec = importlib.util.find_spec("apex")
    if spec is None or not spec.submodule_search_locations:
        return Finding("apex", "absent", "not installed (optional: torch's optimizers and norms are used)")
    if any((Path(p) / "multi_tensor_apply").is_dir() for p in spec.submodule_search_locations):
        return Finding("apex", "ok", f"NVIDIA {_version('apex') or 'build of unknown version'}")
    return Finding("apex", "absent", "the package named apex here is not NVIDIA's", "pip uninstall apex")


def _sglang(has_gpu: bool) -> Finding:
    """SGLang lives in an environment of its own, which is never imported from here."""
    environment = Path(__file__).resolve().parent.parent / ".venv-sglang"
    if version := version_in(environment, "sglang"):
        return Finding("SGLang", "ok", f"{version} in {environment.name}")
    if has_gpu and _version("sglang"):
        return Finding("SGLang", "ok", f"{_version('sglang')} in this environment")
    what = "unfinished environment" if environment.exists() else "no environment"
    return Finding("SGLang", "absent", f"{what}: rollouts use the embedded engine", "make sglang")


def _output_of(*command: str) -> str | None:
    """First output line of a program that is here and succeeds, else None."""
    lines = _run(*command)
    return None if lines is None else (lines or [""])[0]


def _lines_of(*command: str) -> list[str]:
    """All output lines of a program; none when it is not here or fails."""
    return _run(*command) or []


def _run(*command: str) -> list[str] | None:
    if not shutil.which(command[0]):
        return None
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.splitlines()


def _slurm() -> Finding:
    version = _output_of("sinfo", "--version")
    if version is None:
        return Finding("Slurm", "absent", "no sinfo here", "run osim launch on a login node, or over SSH")
    if _output_of("sinfo", "--noheader") is None:
        return Finding("Slurm", "absent", f"{version}, but the controller does not answer", "ask: scontrol ping")
    facts = [version, *_partitions()]
    if _output_of("sacct", "--noheader", "-X") is None:
        facts.append("no accounting: the end of an old job is known from its run folder alone")
    return Finding("Slurm", "ok", "; ".join(facts))


def _partitions() -> Iterator[str]:
    """`gpu: 6 of 8 nodes idle, at most 4:00:00`, of each partition."""
    lines = _lines_of("sinfo", "--noheader", "--format=%P|%D|%t|%l")
    total: dict[str, int] = {}
    idle: dict[str, int] = {}
    limits: dict[str, str] = {}
    for line in lines:
        if not (found := PARTITION.fullmatch(line)):
            continue
        name, count, state, limit = found.groups()
        total[name] = total.get(name, 0) + int(count)
        idle[name] = idle.get(name, 0) + (int(count) if state == "idle" else 0)
        limits[name] = limit
    for name, nodes in total.items():
        yield f"{name}: {idle[name]} of {nodes} nodes idle, limit {limits[name]}"


def _slurm_jobs() -> Iterator[Finding]:
    """The user's own jobs that wait or run, each with its reason."""
    from launch.submit.slurm import JobState

    for line in _lines_of("squeue", "--me", "--noheader", "--format=%A|%j|%T|%r|%N|%S"):
        if len(fields := line.split("|")) != JOB_FIELDS:
            continue  # a name with a bar in it
        job_id, name, state, reason, nodes, start = fields
        found = JobState(
            state, reason="" if reason == "None" else reason, nodes=nodes, start=start.replace("N/A", "")
        )
        yield Finding(f"Job {job_id}", "ok", f"{name}: {found.describe()}")


def _can_submit_containers() -> Finding:
    """Pyxis adds --container-image to srun; containers cannot be used without it."""
    text = "\n".join(_lines_of("srun", "--help"))
    if "--container-image" in text:
        return Finding("Pyxis", "ok", "srun takes --container-image")
    return Finding("Pyxis", "absent", "srun knows no --container-image: leave slurm.container out")


def _nemo_run() -> Finding:
    """NeMo-Run lives in an environment of its own, which is never imported from here."""
    from launch.submit.nemo import installed_version

    version = installed_version()
    if version:
        return Finding("NeMo-Run", "ok", f"{version} in .venv-nemo-run")
    return Finding("NeMo-Run", "absent", "no environment: every job goes as our own script", "make nemo-run")


def _judge() -> Finding:
    """The endpoint that the openai SDK's own variables name; the key is never printed."""
    url = os.environ.get("OPENAI_BASE_URL", "")
    key = os.environ.get("OPENAI_API_KEY", "")
    if not url and not key:
        fix = "export OPENAI_API_KEY (and OPENAI_BASE_URL for another provider); rule-scored tasks need none"
        return Finding("Judge endpoint", "absent", "none configured", fix)
    import httpx

    url = (url or "https://api.openai.com/v1").rstrip("/")
    shown = redact(url, (key,))
    try:
        with httpx.stream(
            "GET", f"{url}/models", headers={"Authorization": f"Bearer {key}"}, timeout=JUDGE_TIMEOUT_S
        ) as answer:
            status = answer.status_code
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as e:
        fix = "check OPENAI_BASE_URL and the network"
        return Finding("Judge endpoint", "absent", f"{shown}: {type(e).__name__}", fix)
    if status in (401, 403):
        return Finding("Judge endpoint", "absent", f"{shown}: the key is refused ({status})", "set OPENAI_API_KEY")
    if status >= 400:
        return Finding("Judge endpoint", "absent", f"{shown}: HTTP {status}", "check OPENAI_BASE_URL")
    return Finding("Judge endpoint", "ok", shown)


def _disk(folder: Path) -> Finding:
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free / GIB
    if free < MIN_DISK_GIB:
        return Finding(
            "Disk", "missing", f"{free:.1f} GiB free at {folder}", f"free {MIN_DISK_GIB:.0f} GiB or give --out"
        )
    return Finding("Disk", "ok", f"{free:.0f} GiB free at {folder}")


def _memory() -> Finding:
    import psutil

    memory = psutil.virtual_memory()
    text = f"{memory.available / GIB:.1f} of {memory.total / GIB:.1f} GiB available; {os.cpu_count()} cores"
    if memory.available / GIB < MIN_MEMORY_GIB:
        return Finding("Memory", "absent", text, f"the quickstart wants {MIN_MEMORY_GIB:.0f} GiB")
    return Finding("Memory", "ok", text)
