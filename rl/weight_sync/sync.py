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

from common.errors import GateError, UsageError
from rl.rollout.base import NamedTensor, RolloutEngine
from rl.rollout.config import Transport, WeightSyncConfig
from rl.weight_sync.checksum import ChecksumTap, compare
from rl.weight_sync.disk import CheckpointWriter, weights_folder


@dataclass(frozen=True)
class SyncReport:
    """What one sync did; goes to the run's metrics."""

    version: int
    nbytes: int
    push_s: float
    verify_s: float
    checked_tensors: int
    """Tensors whose checksums were compared and equal; 0 where the engine has no comparable ones, or unasked."""


async def push_weights(
    engine: RolloutEngine,
    tensors: Iterable[NamedTensor],
    version: int,
    *,
    writer: CheckpointWriter | None = None,
    verify: bool = True,
) -> SyncReport:
    """Bring `engine` to `version`: streamed its own way (broadcast or in process), or by disk if a writer is given.

    Raises EngineError, or GateError when the checksums differ afterwards.
    """
    started = time.monotonic()
    layout = engine.checksum_layout if verify else None
    tap = ChecksumTap(layout)
    stream = tap.through(tensors)
    if writer is None:
        await engine.update_weights(stream, version)
    else:
        await engine.update_weights(writer.write(stream, version), version)
    pushed = time.monotonic()
    checked = await _verify(engine, tap, version) if layout else 0
    return SyncReport(version, tap.bytes_passed, pushed - started, time.monotonic() - pushed, checked)


async def _verify(engine: RolloutEngine, tap: ChecksumTap, version: int) -> int:
    comparison = compare(tap.checksums, await engine.checksums())
    if not comparison.equal:
        raise GateError(
            f"after weight version {version} the engine does not hold the trainer's weights: {comparison}",
            where=engine.name,
            fix="restart the run from its last checkpoint; if it happens again, try the disk transport",
        )
    return comparison.compared


class WeightSync:
    """`push_weights` as configured. `base` is an HF directory of the same architecture (config and tokenizer).

    other_machines: servers elsewhere read what `disk` writes.
    """

    def __init__(
        self,
        engine: RolloutEngine,
        base: Path,
        run_dir: Path,
        config: WeightSyncConfig,
        *,
        other_machines: bool = False,
    ) -> None:
        self._engine, self._verify = engine, config.verify
        self.transport = _resolve(config.transport, engine)
        engine.bucket_bytes = config.bucket_mib << 20
        self._writer = (
            CheckpointWriter(
                config.directory or weights_folder(run_dir, "sync", other_machines=other_machines),
                base,
                shard_bytes=config.shard_mib << 20,
            )
            if self.transport == "disk"
            else None
        )

    async def push(self, tensors: Iterable[NamedTensor], version: int) -> SyncReport:
        """See `push_weights`."""
        return await push_weights(self._engine, tensors, version, writer=self._writer, verify=self._verify)

    def close(self) -> None:
        """Remove the written versions."""
        if self._writer:
            self._writer.close()


def drain(tensors: Iterable[NamedTensor]) -> None:
    """What ranks that push nothing, or no longer, do: take part in producing the stream to its end."""
    for _ in tensors:
        pass


def _resolve(transport: Transport, engine: RolloutEngine) -> Transport:
    """The transport of a run; the engine is told."""
    if transport == "auto":
        transport = engine.stream_transport
    if transport == "disk":
        return transport
    if transport not in engine.stream_transports:
        known = " or ".join(("disk", *engine.stream_transports))
        raise UsageError(
            f"the engine {engine.name} takes weights by {known}, not {transport}",
            where="weight_sync.transport",
            fix="write auto",
        )
    engine.stream_transport = transport
    return transport
