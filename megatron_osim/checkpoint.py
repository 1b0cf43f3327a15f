"""Checkpoints: Megatron's torch_dist format, written in the background, visible only when whole.

checkpoints/step-00000100/ holds weights, optimizer and RNG (reshardable over tensor, pipeline and data parallel
sizes) and state.json (step, layout, the caller's own state such as the data cursor). It is written under a temporary
name and renamed by rank 0 after every rank has finished; a killed writer leaves a temporary folder, which the next
run deletes. state.json also has the size and hash of every file, which loading checks. All methods are collective.
"""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from megatron.core import dist_checkpointing, parallel_state
from megatron.core.dist_checkpointing.mapping import ShardedObject
from megatron.core.dist_checkpointing.strategies.async_utils import AsyncCallsQueue
from megatron.core.dist_checkpointing.strategies.torch import TorchDistSaveShardedStrategy
from megatron.core.tensor_parallel import get_cuda_rng_tracker
from torch.distributed.checkpoint.api import CheckpointException

from common.errors import DataError, UsageError
from common.files import fsync_directory, hash_file, read_sealed_json, write_sealed_json
from megatron_osim.adamw import prepare_for_checkpoint, separate_steps
from megatron_osim.config import CheckpointConfig
from megatron_osim.runtime.writer_queue import use_own_results_queue
from megatron_osim.trainer import Trainer

FORMAT = 1
STATE = "state.json"
CHECKPOINT_FIX = "move this checkpoint away: the run then resumes from the one before it"
_NAME = re.compile(r"step-(\d{8})")
_SHARD = re.compile(r"__(\d+)_\d+\.distcp")
# From 0.19 on, Megatron asks by default for a writer that is a package of its own.
_ASYNC_OPTIONS: dict[str, Any] = (
    {"async_strategy": "mcore"} if "async_strategy" in signature(dist_checkpointing.save).parameters else {}
)
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """One whole checkpoint on disk."""

    path: Path
    step: int

    @property
    def state(self) -> dict[str, Any]:
        """The content of state.json; `extra` is the caller's. Raises DataError when it is damaged."""
        return read_sealed_json(self.path / STATE, fix=CHECKPOINT_FIX)

    def problems(self, part: int = 0, parts: int = 1) -> list[str]:
        """What is wrong with every `parts`-th file. A checkpoint of earlier versions names no files."""
        found = []
        for name, (size, digest) in sorted(self.state.get("files", {}).items())[part::parts]:
            path = self.path / name
            if not path.is_file():
                found.append(f"{name}: missing")
            elif path.stat().st_size != size or hash_file(path) != digest:
                found.append(f"{name}: not what was written")
        return found

    def damaged(self, problems: Sequence[str]) -> DataError:
        """The error that names them."""
        older = [c for c in list_checkpoints(self.path.parent) if c.step < self.step]
        then = f"goes on from step {older[-1].step}" if older else "starts anew"
        return DataError(
            f"this checkpoint is damaged: {'; '.join(problems[:3])}",
            where=str(self.path),
            fix=f"move it away and run the same command again: the run then {then}",
        )


def list_checkpoints(folder: Path) -> list[Checkpoint]:
    """Whole checkpoints, oldest first. What lacks its last file is not one."""
    found = []
    for path in folder.glob("step-*") if folder.is_dir() else ():
        if (match := _NAME.fullmatch(path.name)) and (path / STATE).is_file():
            found.append(Checkpoint(path, int(match[1])))
    return sorted(found, key=lambda c: c.step)


def latest_checkpoint(folder: Path) -> Checkpoint | None:
    """The newest whole checkpoint."""
    found = list_checkpoints(folder)
    return found[-1] if found else None


class Checkpointer:
    """Saves and loads one trainer's checkpoints in one folder, on all ranks together."""

    def __init__(self, trainer: Trainer, folder: Path, config: CheckpointConfig) -> None:
        self.trainer, self.folder, self.config = trainer, folder, config
        self._queue = AsyncCallsQueue()
        use_own_results_queue()
        if trainer.ranks.is_first:
            folder.mkdir(parents=True, exist_ok=True)
            for left in folder.glob(".step-*.tmp"):
                shutil.rmtree(left, ignore_errors=True)
        dist.barrier()

    def save(self, step: int, extra: Mapping[str, Any] | None = None) -> None:
        """Start writing the state after `step` steps. Training may go on: the written state is that of now.

        Waits first for an earlier save. `extra` must be plain JSON.
        """
        self.wait()
        final = self.folder / f"step-{step:08d}"
        temporary = self.folder / f".{final.name}.tmp"
        if self.trainer.ranks.is_first:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir()
        dist.barrier()
        prepare_for_checkpoint(self.trainer.optimizer)
        request = dist_checkpointing.save(
            self._sharded_state(rng=True),
            str(temporary),
            sharded_strategy=TorchDistSaveShardedStrategy("torch_dist", 1, thread_count=1),
            async_sharded_save=True,
            **_ASYNC_OPTIONS,
        )
        state = {"format": FORMAT, "step": step, "layout": self._layout(), "extra": dict(extra or {})}
        request.add_finalize_fn(lambda: self._publish(temporary, final, state))
        self._queue.schedule_async_request(request)

    def poll(self) -> None:
        """Publish a save whose writing has ended. Call once per step; cheap when nothing is in flight."""
        self._finalize(blocking=False)

    def wait(self) -> None:
        """Return when every save is on disk. Raises UsageError where one could not be written."""
        self._finalize(blocking=True)

    def _finalize(self, *, blocking: bool) -> None:
        try:
            self._queue.maybe_finalize_async_calls(blocking=blocking)
        except CheckpointException as e:
            why = "; ".join(dict.fromkeys(str(error) for error, _ in e.failures.values()))
            raise UsageError(
                f"the checkpoint could not be written: {why}",
                where=str(self.folder),
                fix="free space or make it writable; the same command goes on from the newest whole checkpoint",
            ) from e

    def load_latest(self) -> Checkpoint | None:
        """Load the newest whole checkpoint, of any layout; None when there is none (nothing is changed then)."""
        found = [latest_checkpoint(self.folder) if self.trainer.ranks.is_first else None]
        dist.broadcast_object_list(found, 0)
        if found[0] is not None:
            self.load(found[0])
        return found[0]

    def load(self, checkpoint: Checkpoint) -> None:
        """Weights and optimizer; RNG too when the layout is the one that saved it."""
        state = checkpoint.state
        if state.get("format") != FORMAT:
            raise DataError(
                f"checkpoint format {state.get('format')}, this version reads {FORMAT}",
                where=str(checkpoint.path),
                fix="use the version of osim that wrote it",
            )
        layout = state.get("layout")
        if not isinstance(layout, dict) or not isinstance(layout.get("expert"), int):
            raise DataError("a state without its layout", where=str(checkpoint.path), fix=CHECKPOINT_FIX)
        self._check(checkpoint)
        same_layout = layout == self._layout()
        if (layout["expert"] > 1) != (self.trainer.parallel.expert > 1):
            raise DataError(
                f"saved with expert = {layout['expert']}, now {self.trainer.parallel.expert}: Megatron "
                "keeps experts in an optimizer of their own only where they are spread",
                where=str(checkpoint.path),
                fix="resume with expert > 1 on both sides or on neither, or start anew from an export "
                "(osim convert megatron-to-hf)",
            )
        prepare_for_checkpoint(self.trainer.optimizer)
        loaded = dist_checkpointing.load(self._sharded_state(rng=same_layout, loading=True), str(checkpoint.path))
        for key, chunk in self._chunks().items():
            chunk.load_state_dict(loaded[key])
        self.trainer.optimizer.load_state_dict(loaded["optimizer"])
        separate_steps(self.trainer.optimizer)
        if same_layout:
            _set_rng_state(loaded["rng"])
        else:
            logger.warning("loaded %s in another layout: the RNG was not restored", checkpoint.path)

    def _check(self, checkpoint: Checkpoint) -> None:
        """Each rank reads its share of the files; all raise what any of them found."""
        ranks = self.trainer.ranks
        found: list[list[str]] = [[] for _ in range(ranks.world_size)]
        dist.all_gather_object(found, checkpoint.problems(ranks.rank, ranks.world_size))
        if problems := [p for part in found for p in part]:
            raise checkpoint.damaged(problems)

    def _chunks(self) -> dict[str, Any]:
        chunks = self.trainer.chunks
        return {"model": chunks[0]} if len(chunks) == 1 else {f"model{i}": c for i, c in enumerate(chunks)}

    def _layout(self) -> dict[str, int]:
        p = self.trainer.parallel
        return {
            "world_size": self.trainer.ranks.world_size,
            "tensor": p.tensor,
            "pipeline": p.pipeline,
            "virtual_pipeline": p.virtual_pipeline or 1,
            "context": p.context,
            "expert": p.expert,
        }

    def _sharded_state(self, *, rng: bool, loading: bool = False) -> dict[str, Any]:
        metadata = {
            "distrib_optim_sharding_type": "fully_reshardable",
            "distrib_optim_fully_reshardable_mem_efficient": False,
            "chained_optim_avoid_prefix": True,
            "dp_cp_group": parallel_state.get_data_parallel_group(with_context_parallel=True),
        }
        out = {key: chunk.sharded_state_dict(metadata=metadata) for key, chunk in self._chunks().items()}
        out["optimizer"] = self.trainer.optimizer.sharded_state_dict(out, is_loading=loading, metadata=metadata)
        if rng:
            ranks = self.trainer.ranks
            out["rng"] = ShardedObject("rng_state", _rng_state(), (ranks.world_size,), (ranks.rank,))
        return out

    def _publish(self, temporary: Path, final: Path, state: Mapping[str, Any]) -> None:
        """Runs on every rank after all of them have written. Each reads what it wrote, which is still in memory."""
        ranks = self.trainer.ranks
        own = [p for p in temporary.iterdir() if p.is_file() and _writer(p.name) % ranks.world_size == ranks.rank]
        files: list[dict[str, Any]] = [{} for _ in range(ranks.world_size)]
        dist.all_gather_object(files, {p.name: (p.stat().st_size, hash_file(p)) for p in own})
        if self.trainer.ranks.is_first:
            every = {name: facts for part in files for name, facts in part.items()}
            write_sealed_json(temporary / STATE, {**state, "files": every})
            shutil.rmtree(final, ignore_errors=True)
            temporary.rename(final)
            fsync_directory(self.folder)
            self._prune()

    def _prune(self) -> None:
        keep_every = self.config.keep_every
        for old in list_checkpoints(self.folder)[: -self.config.keep_last]:
            if keep_every is None or old.step % keep_every:
                # Renamed first, so that a kill in the middle leaves nothing that looks whole.
                doomed = self.folder / f".{old.path.name}.tmp"
                old.path.rename(doomed)
                shutil.rmtree(doomed)


def _writer(name: str) -> int:
    """The rank that wrote a file of a torch_dist checkpoint; the common ones are rank 0's."""
    match = _SHARD.match(name)
    return int(match[1]) if match else 0


def _rng_state() -> dict[str, Any]:
    state: dict[str, Any] = {"cpu": torch.get_rng_state(), "tracker": get_cuda_rng_tracker().get_states()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def _set_rng_state(state: Mapping[str, Any]) -> None:
    torch.set_rng_state(state["cpu"])
    if torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
    get_cuda_rng_tracker().set_states(state["tracker"])
