"""The state of a run that the loop works on: actor, checkpoints, and on rank 0 the rollout side.

Every rank has one; all methods are collective unless they say otherwise. Opening loads the newest whole checkpoint of
the run folder, or the weights of the configured model; closing ends engines and writes what is in flight.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from types import TracebackType
from typing import Self

from megatron.core import dist_checkpointing

from common.errors import DataError, ExitCode, OsimError, UsageError, data_errors
from common.files import write_json
from common.run_folder import RunFolder
from common.tracking import WandbTracker
from megatron_osim.checkpoint import (
    CHECKPOINT_FIX,
    Checkpoint,
    Checkpointer,
    latest_checkpoint,
    list_checkpoints,
)
from megatron_osim.config import ArchitectureConfig
from megatron_osim.convert import export_hf, load_hf
from megatron_osim.layout import check_layout
from megatron_osim.lora import attach as attach_lora
from megatron_osim.model import DecoderModel, build_model
from megatron_osim.runtime import Ranks
from megatron_osim.runtime.stop import StopRequest
from megatron_osim.trainer import build_trainer
from rl.actor.actor import Actor, Update
from rl.actor.average import WeightAverage
from rl.collect import Collected, Experience
from rl.config import RLConfig
from rl.gates import LogprobGap, WorstToken, check_gap, largest_gaps, measure_gap
from rl.generation import Generation
from rl.metrics import Clock, step_metrics
from rl.samples import TrainSample
from rl.spmd import from_first
from rl.weight_sync.sync import SyncReport, drain


class Session:
    """See the module's docstring. `step` is the number of finished steps, `collected` rank 0's data of this one."""

    def __init__(self, config: RLConfig, run: RunFolder, ranks: Ranks) -> None:
        self.config, self.run, self.ranks = config, run, ranks
        self.stop = StopRequest(run.path)
        self.step = 0
        self.collected: Collected | None = None
        self._probes: tuple[TrainSample, ...] = ()
        self.actor = build_actor(config, ranks)
        self._checkpointer = Checkpointer(self.actor.trainer, run.checkpoints, config.checkpoint)
        self._saved_step = -1
        resumed = self._checkpointer.load_latest()
        self.generation: Generation | None = None
        self._tracker: WandbTracker | None = None
        try:
            self._open_generation()
            self._resume(resumed)
        except BaseException:
            self.close(finish_saves=False)
            raise

    def collect(self) -> Experience | None:
        """This step's training data, or None when the run is to stop."""
        if self.stop.seen_anywhere(self.ranks.device):
            return None
        generation, step = self.generation, self.step

        def make() -> Experience | None:
            assert generation is not None
            self.collected = generation.collect(step, lambda: self.stop.here)
            if self.collected and self.config.max_staleness and step + 1 < self.config.steps:
                generation.play_ahead(step + 1)
            return self.collected.experience if self.collected else None

        try:
            experience = from_first(self.ranks, make)
        except OsimError as e:
            if e.exit_code == ExitCode.GATE and self.step > 0:
                self.save()  # a budget, a judge that is down: what is trained is kept
            raise
        self._probes = experience.probes if experience else self._probes
        return experience

    def settle(self) -> None:
        """Wait for the rollouts that are played ahead."""
        if self.generation is not None:
            self.generation.settle()

    def check_engine(self, batch: Sequence[TrainSample]) -> LogprobGap:
        """The gate on engine and trainer (exit 3), on a prepared batch.

        Rollouts of older weights say nothing about it: then the engine scores a few sequences under the present ones.
        """
        compared = batch if self.config.max_staleness == 0 else self._scored_probes()
        return self._checked(compared, where=f"step {self.step}")

    def sync(self) -> None:
        """Engine weights := actor weights, version := finished steps; proved by checksums (exit 3)."""
        tensors, generation = self.actor.stream_weights(), self.generation

        def push() -> SyncReport:
            assert generation is not None
            try:
                return generation.sync(tensors, version=self.step)
            except OsimError:
                drain(tensors)  # the other ranks are still taking part in producing it
                raise

        if not self.ranks.is_first:
            drain(tensors)
        from_first(self.ranks, push)

    def finish_step(self) -> None:
        """Record what was trained on; the next step begins."""
        generation, collected = self.generation, self.collected

        def consume() -> None:
            assert generation is not None and collected is not None
            generation.collector.consume(collected)

        from_first(self.ranks, consume)
        self.step += 1

    def log(self, batch: Sequence[TrainSample], gap: LogprobGap, update: Update, clock: Clock) -> None:
        """Append the finished step's line to metrics.jsonl. On rank 0 alone; the others do nothing."""
        generation, collected = self.generation, self.collected
        if collected is not None and generation is not None:
            step = collected.experience.step
            line = step_metrics(collected, batch, gap, update, clock, generation.report(step))
            self.run.log_metrics(step, "rl", line)
            if self._tracker is not None:
                self._tracker.log(step, "rl", line)

    def save(self) -> None:
        """Start writing a checkpoint of the finished steps, unless this one exists."""
        if self._saved_step == self.step:
            return
        generation = self.generation

        def flush() -> None:
            assert generation is not None
            generation.ledger.flush()

        from_first(self.ranks, flush)
        if self.actor.average is not None:
            self._save_average(self.actor.average)
        algorithms = generation.collector.state if generation is not None else {}
        self._checkpointer.save(self.step, {"algorithms": algorithms})
        self._saved_step = self.step

    def save_if_due(self) -> None:
        """Every `checkpoint.every_steps`, and after the last step."""
        self._checkpointer.poll()
        every = self.config.checkpoint.every_steps
        if self.step == self.config.steps or (every and self.step % every == 0):
            self.save()

    def check_final_weights(self) -> None:
        """The gate after the last sync, for which no rollouts follow."""
        self._checked(self._scored_probes(), where=f"after step {self.step - 1}")

    def _checked(self, compared: Sequence[TrainSample], *, where: str) -> LogprobGap:
        """The gap over prepared samples. When it stops the run, RUN/logs/logprob-gap.json has the largest."""
        gap = measure_gap(compared)

        def evidence(worst: WorstToken) -> str:
            again = self._asked_again(compared[worst.index], worst.position)
            if self.ranks.is_first:
                listing = [asdict(sample) for sample in largest_gaps(compared)]
                write_json(self.run.path / "logs" / "logprob-gap.json", {"where": where, "samples": listing})
            return again

        check_gap(gap, self.config.gates, where=where, evidence=evidence)
        return gap

    def _asked_again(self, sample: TrainSample, position: int) -> str:
        """Both sides once more, on this sequence alone and without a prefix cache: who changes was wrong before."""
        generation = self.generation

        def score() -> list[TrainSample]:
            assert generation is not None
            return generation.score([sample])

        trainer = float(self.actor.logprobs([sample.ids], temperature=1.0)[0][position])
        try:
            (scored,) = from_first(self.ranks, score)
        except OsimError:
            return f"; asked again, at temperature 1, the trainer says {trainer:.7f} and the engine does not answer"
        assert scored.rollout_logprobs is not None
        engine = float(scored.rollout_logprobs[position])
        return f"; asked again, at temperature 1, the engine says {engine:.7f}, the trainer {trainer:.7f}"

    def _scored_probes(self) -> list[TrainSample]:
        """Engine and trainer score the same few sequences under their present weights."""
        generation = self.generation

        def score() -> list[TrainSample]:
            assert generation is not None
            return generation.score(self._probes)

        if not self._probes:
            return []
        probes = from_first(self.ranks, score)
        logprobs = self.actor.logprobs([p.ids for p in probes], temperature=1.0)
        return [replace(p, old_logprobs=p.spread(v)) for p, v in zip(probes, logprobs, strict=True)]

    def export(self) -> None:
        """Write RUN_DIR/hf."""
        if self.config.export_hf:
            trainer = self.actor.trainer
            export_hf(trainer.chunks, trainer.arch, self.run.path / "hf", tokenizer_dir=self.config.model)

    def close(self, *, finish_saves: bool = True) -> None:
        """Finish what is being written, end engines."""
        with ExitStack() as ends:  # last in, first out; one that fails keeps none of the others from ending
            if self.generation is not None:
                ends.callback(self.generation.close)
            if self._tracker is not None:
                ends.callback(self._tracker.close)
            ends.callback(self.stop.close)
            if finish_saves:
                ends.callback(self._checkpointer.wait)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # After a bug on one rank the others may be anywhere: no collective then.
        self.close(finish_saves=error is None or isinstance(error, OsimError))

    def _save_average(self, average: WeightAverage) -> None:
        """Written before its checkpoint becomes visible; those whose checkpoint is gone are removed."""
        self._checkpointer.wait()  # an earlier checkpoint that is still being written keeps its average
        average.save(self._average_folder())
        if self.ranks.is_first:
            kept = {c.path.name for c in list_checkpoints(self.run.checkpoints)} | {self._average_folder().name}
            for folder in self._average_folder().parent.iterdir():
                if folder.name not in kept:
                    shutil.rmtree(folder, ignore_errors=True)

    def _average_folder(self) -> Path:
        """Of this step's checkpoint."""
        return self.run.path / "averages" / f"step-{self.step:08d}"

    def _open_generation(self) -> None:
        def open_it() -> None:
            self.generation = Generation(self.config, self.run, self.ranks.device)
            if self.config.wandb is not None:
                self._tracker = WandbTracker(self.config.wandb, self.run, self.config)

        from_first(self.ranks, open_it)

    def _resume(self, checkpoint: Checkpoint | None) -> None:
        if checkpoint is not None:
            self.step = self._saved_step = checkpoint.step
            if self.actor.average is not None:
                self.actor.average.load(self._average_folder())
        generation, step = self.generation, self.step

        def rewind() -> None:
            assert generation is not None
            if step and not generation.ledger.keys(step=step - 1):
                raise DataError(
                    f"no episode of step {step - 1}, on which the checkpoint of step {step} was trained",
                    where=str(generation.ledger.path),
                    fix="restore the ledger from a copy, or start anew in another folder",
                )
            generation.ledger.rewind(step - 1)
            if checkpoint is not None:
                with data_errors(str(checkpoint.path), fix=CHECKPOINT_FIX, what="a state that is not this run's"):
                    generation.collector.restore(checkpoint.state["extra"]["algorithms"])

        from_first(self.ranks, rewind)


def build_actor(config: RLConfig, ranks: Ranks) -> Actor:
    """The actor of a configuration with the weights of its model."""
    arch = ArchitectureConfig.from_hf_config(config.model)
    check_layout(arch, config.parallel, world_size=ranks.world_size, capability=ranks.capability)
    chunks = build_model(arch, config.parallel, precision=config.precision)
    if config.init_checkpoint is None:
        load_hf(chunks, arch, config.model)
    else:
        _load_weights(chunks, config.init_checkpoint)
    if config.lora is not None:
        attach_lora(chunks, arch, config.lora, seed=config.seed)
    trainer = build_trainer(chunks, arch, config.parallel, config.optimizer, ranks, precision=config.precision)
    return Actor(trainer, config)


def _load_weights(chunks: Sequence[DecoderModel], checkpoint: Path) -> None:
    """The weights alone of a Megatron checkpoint of any layout."""
    if not (checkpoint / "metadata.json").is_file():
        raise UsageError("no Megatron checkpoint here", where=str(checkpoint), fix="give a step-… folder of a run")
    for chunk in chunks:
        chunk.load_state_dict(
            dist_checkpointing.load({"model": chunk.sharded_state_dict()}, str(checkpoint))["model"]
        )


def is_finished(config: RLConfig, run: RunFolder) -> bool:
    """Whether nothing is left to do: the last step is saved and exported. Not collective."""
    last = latest_checkpoint(run.checkpoints)
    exported = not config.export_hf or (run.path / "hf" / "config.json").is_file()
    return last is not None and last.step >= config.steps and exported
