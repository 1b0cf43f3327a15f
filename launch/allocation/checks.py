"""The single checks of the preflight. Each returns Checks with what was measured, its bound and the fix; none raises.

They run on the nodes, before the expensive part (`preflight`). No check needs more than its own stated deadline.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx

from common.errors import ExitCode, OsimError
from common.files import hash_file
from common.redact import redact
from data_tools.indexed import add_suffix
from data_tools.manifest import Manifest
from envs.client.config import ClientConfig, RoleName, resolve
from rl.rollout.api_key import named_key
from rl.rollout.config import RolloutConfig

GIB, MIB = 2**30, 2**20
ROLES: tuple[RoleName, ...] = ("judge", "partner", "critic", "auditor", "policy")
OPENAI = "https://api.openai.com/v1"
CHUNK = 8 * MIB
DISK_TRIES = 3


@dataclass(frozen=True)
class Check:
    """One line of the preflight's report. exit_code is that of the failure."""

    name: str
    ok: bool
    measured: str
    bound: str = ""
    fix: str = ""
    exit_code: int = ExitCode.USAGE

    def line(self) -> str:
        bound = f" (must be {self.bound})" if self.bound else ""
        fix = f"\n    fix: {self.fix}" if not self.ok and self.fix else ""
        return f"{'✓' if self.ok else '✗'} {self.name}: {self.measured}{bound}{fix}"

    def plain(self) -> dict[str, object]:
        return asdict(self)


def visible_gpus(found: int, expected: int, host: str) -> Check:
    """GPUs that torch sees on one node."""
    fix = f"nvidia-smi there shows what is missing; leave the node out with slurm.sbatch_flags: {{exclude: {host}}}"
    return Check(f"GPUs of {host}", found >= expected, str(found), f"at least {expected}", fix)


def allreduce(gb_per_s: float, bound: float, ranks: int, backend: str) -> Check:
    """Measured bus bandwidth against its bound."""
    fix = (
        "NCCL_DEBUG=INFO shows the network NCCL took; set NCCL_SOCKET_IFNAME and NCCL_IB_HCA in slurm.environment"
        if backend == "nccl"
        else "set GLOO_SOCKET_IFNAME in slurm.environment to the network that the nodes share"
    )
    return Check(
        f"all-reduce over {ranks} ranks ({backend})",
        gb_per_s >= bound,
        f"{gb_per_s:.3g} GB/s",
        f"at least {bound:g} GB/s",
        fix + ", or lower preflight.min_allreduce_gb_per_s",
        ExitCode.GATE,
    )


def disk_space(folder: Path, needed_gib: float) -> Check:
    """Free space where the run writes."""
    free = shutil.disk_usage(folder).free / GIB
    fix = "free space, lower checkpoint.keep_last, or put the run folder elsewhere"
    return Check(
        f"free space at {folder}", free >= needed_gib, f"{free:.1f} GiB", f"at least {needed_gib:.1f} GiB", fix
    )


def disk_speed(folder: Path, mib: int, bound: float) -> Check:
    """Write (with fsync) and read one file of `mib` MiB; the slower of the two counts.

    Of a few tries the best: a moment in which a shared disk is busy is no reason to end a run.
    """
    best = (0.0, 0.0)
    try:
        for _ in range(DISK_TRIES):
            best = max(best, _write_and_read(folder, mib), key=min)
            if min(best) >= bound:
                break
    except OSError as e:
        return Check(f"disk speed at {folder}", False, str(e), fix="the run folder must be writable from the nodes")
    return Check(
        f"disk speed at {folder}",
        min(best) >= bound,
        f"writes {best[0]:.0f}, reads {best[1]:.0f} MiB/s",
        f"at least {bound:g} MiB/s",
        "put the run folder on the parallel file system, or lower preflight.min_disk_mib_per_s",
        ExitCode.GATE,
    )


def _write_and_read(folder: Path, mib: int) -> tuple[float, float]:
    """Both speeds, in MiB/s. Raises OSError."""
    path = folder / f".preflight-{os.getpid()}.tmp"
    block = os.urandom(MIB)
    try:
        started = time.monotonic()
        with path.open("wb") as f:
            for _ in range(mib):
                f.write(block)
            f.flush()
            os.fsync(f.fileno())
        written = time.monotonic()
        with path.open("rb") as f:
            while f.read(CHUNK):
                pass
        read = time.monotonic()
    finally:
        path.unlink(missing_ok=True)
    return mib / max(1e-9, written - started), mib / max(1e-9, read - written)


@dataclass(frozen=True)
class DataFile:
    """One file of a shard with what its manifest says of it."""

    path: Path
    size: int
    checksum: str


def data_files(prefixes: Iterable[Path]) -> Iterator[DataFile]:
    """All files of the shards. Raises DataError for a prefix without manifest."""
    for prefix in prefixes:
        for suffix, facts in Manifest.read(prefix).files.items():
            yield DataFile(add_suffix(prefix, suffix), facts.size, facts.xxh3_128)


def checksums(files: Iterable[DataFile], budget_bytes: float) -> Check:
    """Sizes of all `files`, and checksums of as many as the budget allows."""
    hashed, seen, wrong = 0, 0, []
    for file in files:
        seen += 1
        if not file.path.is_file():
            wrong.append(f"{file.path}: missing")
        elif (size := file.path.stat().st_size) != file.size:
            wrong.append(f"{file.path}: {size} bytes instead of {file.size}")
        elif hashed + size <= budget_bytes:
            hashed += size
            if hash_file(file.path) != file.checksum:
                wrong.append(f"{file.path}: checksum differs")
    measured = "; ".join(wrong) or f"{seen} files as their manifests say, {hashed / GIB:.2f} GiB of them read"
    return Check("dataset", not wrong, measured, fix="copy the shard again, or run `osim data prepare` again")


def endpoints(client: ClientConfig, environment: Mapping[str, str], timeout_s: float) -> Iterator[Check]:
    """Each role's endpoint answers `GET /models` with this key. The key is never shown."""
    for role in ROLES:
        endpoint = getattr(client, role)
        if endpoint is None:
            continue
        name = f"{role} {endpoint.model}"
        try:
            address = resolve(endpoint, environment)
        except OsimError as e:
            yield Check(name, False, e.what, fix=f"{e.fix} where you submit")
            continue
        url = (address.base_url or OPENAI).rstrip("/")
        yield reachable(name, f"{url}/models", timeout_s, {"Authorization": f"Bearer {address.api_key}"})


def rollout_servers(rollout: RolloutConfig, environment: Mapping[str, str], timeout_s: float) -> Iterator[Check]:
    """Each server given by URL answers, and takes our key."""
    try:
        key = named_key(rollout.api_key_variable, environment) if rollout.urls else None
    except OsimError as e:
        yield Check("rollout servers", False, e.what, fix=f"{e.fix} where you submit")
        return
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    for url in rollout.urls:
        yield reachable(f"rollout server {url}", f"{url.rstrip('/')}/model_info", timeout_s, headers)


def reachable(name: str, url: str, timeout_s: float, headers: Mapping[str, str] | None = None) -> Check:
    """Whether an HTTP endpoint answers, and takes our key."""
    fix = "the nodes must reach it: check the address, the proxy and the firewall"
    shown = redact(url)
    try:
        with httpx.stream("GET", url, headers=dict(headers or {}), timeout=timeout_s) as answer:
            status = answer.status_code
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as e:
        return Check(name, False, f"{shown}: {type(e).__name__}", fix=fix)
    if status in (401, 403):
        return Check(
            name, False, f"{shown}: the key is refused ({status})", fix="export the right key where you submit"
        )
    # Servers that answer chat requests only have no list of models.
    ok = status < 400 or status in (404, 405)
    return Check(name, ok, f"{shown}: HTTP {status}", fix=fix)
