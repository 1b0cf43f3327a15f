"""After a training step: the actor's weights into the rollout engines, and the proof that they arrived.

Every actor rank iterates its stream of HF tensors (producing one is a collective); the rank that owns the engines
pushes it, the others `drain` it. Nothing holds a full copy: tensors pass in buckets, are hashed on the way and
forgotten. After the push the engine's own checksums are compared with the trainer's: a difference is a GateError
naming the tensors, because rollouts of unknown weights are worth nothing. A failing engine raises EngineError.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from common.errors import GateError
from rl.rollout.base import NamedTensor, RolloutEngine
from rl.weight_sync.checksum import ChecksumTap, compare
from rl.weight_sync.config import Transport, WeightSyncConfig
from rl.weight_sync.disk import CheckpointWriter

SHARED_MEMORY = Path("/dev/shm")


@dataclass(frozen=True)
class SyncReport:
    """What one sync did; goes to the run's metrics."""

    version: int
    transport: Transport
    nbytes: int
    seconds: float
    verify_seconds: float
    checked_tensors: int
    """Tensors whose checksums were compared and equal; 0 when verification is off."""


class WeightSync:
    """Pushes weight versions into one engine (or pool). `base` is an HF directory of the same architecture."""

    def __init__(self, engine: RolloutEngine, base: Path, run_dir: Path, config: WeightSyncConfig) -> None:
        self._engine, self._config = engine, config
        self.transport = _resolve(config.transport, engine)
        self._writer = CheckpointWriter(_directory(config, run_dir), base, shard_bytes=config.shard_mib << 20)
        self._checkpoint: Path | None = None

    async def push(self, tensors: Iterable[NamedTensor], version: int) -> SyncReport:
        """Bring the engine to `version`. Raises EngineError, or GateError when the checksums differ."""
        started = time.monotonic()
        tap = ChecksumTap(self._engine.checksum_layout)
        stream: Iterable[NamedTensor] = tap.through(tensors)
        if self.transport == "disk":
            self._checkpoint = self._writer.write(stream, version)
            await self._engine.update_weights(self._checkpoint, version)
        else:
            if self.transport == "distributed" and self._config.keep_recovery_copy:
                stream = self._writer.tee(stream, version)
                self._checkpoint = self._writer.path(version)
            await self._engine.update_weights(stream, version)
        pushed = time.monotonic()
        checked = await self._verify(tap, version) if self._config.verify else 0
        return SyncReport(
            version, self.transport, tap.bytes_passed, pushed - started, time.monotonic() - pushed, checked
        )

    async def _verify(self, tap: ChecksumTap, version: int) -> int:
        comparison = compare(tap.checksums, await self._engine.checksums())
        if not comparison.equal:
            raise GateError(
                f"after weight version {version} the engine does not hold the trainer's weights: {comparison}",
                where=self._engine.name,
                fix="restart the run from its last checkpoint; if it happens again, try weight_sync.transport=disk",
            )
        return comparison.compared

    @property
    def checkpoint(self) -> Path | None:
        """HF directory of the last pushed version, where one was written: what a replaced server loads."""
        return self._checkpoint

    def close(self) -> None:
        """Remove the written versions."""
        self._writer.close()


def drain(tensors: Iterable[NamedTensor]) -> None:
    """What the ranks that push nothing do: take part in producing the stream."""
    for _ in tensors:
        pass


def _resolve(transport: Transport, engine: RolloutEngine) -> Transport:
    if transport != "auto":
        return transport
    return "tensor" if engine.checksum_layout == "hf" else "distributed"


def _directory(config: WeightSyncConfig, run_dir: Path) -> Path:
    if config.directory is not None:
        return config.directory
    if SHARED_MEMORY.is_dir():
        # One folder per run: its name is a function of the run's, so a restarted run cleans up after itself.
        return SHARED_MEMORY / f"osim{str(run_dir.resolve()).replace('/', '-')}"
    return run_dir / "weights"
