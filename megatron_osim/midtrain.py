"""Behavioural midtraining: read, step, log, validate, save; the same loop on one CPU process and on a cluster.

Runs in every rank. Only rank 0 writes metrics and the export. A run that is started again on its folder goes on from
the newest whole checkpoint and repeats nothing: weights, optimizer, RNG, anomaly window and data position are those
of the step.
"""

from __future__ import annotations

import json
import time
from typing import Any

from common.errors import GateError, Interrupted
from common.run_folder import RunFolder
from megatron_osim.anomaly import AnomalyWatch
from megatron_osim.checkpoint import Checkpointer
from megatron_osim.config import MidtrainConfig
from megatron_osim.convert import export_hf, load_hf, load_random
from megatron_osim.data import TrainingData, ValidationData
from megatron_osim.layout import check_layout
from megatron_osim.model import build_model
from megatron_osim.runtime import Ranks
from megatron_osim.runtime.memory import peak_memory_gib
from megatron_osim.runtime.stop import StopRequest
from megatron_osim.train_step import StepResult, evaluate_loss, token_mean_loss, train_step
from megatron_osim.trainer import Trainer, build_trainer

PHASE = "midtrain"
EXPORT = "hf"


def midtrain(run: RunFolder, config: MidtrainConfig, ranks: Ranks) -> None:
    """Train to config.steps. Raises Interrupted (exit 4) after a stop request, GateError (exit 3) on an anomaly."""
    Midtraining(run, config, ranks).run()


class Midtraining:
    """One run, from its configuration to its export."""

    def __init__(self, run: RunFolder, config: MidtrainConfig, ranks: Ranks) -> None:
        self.run_folder, self.config, self.ranks = run, config, ranks
        self.trainer = prepare_trainer(config, ranks)
        vocab_size = self.trainer.arch.vocab_size
        self.data = TrainingData(
            config.data, global_batch=config.global_batch, seed=config.seed, vocab_size=vocab_size
        )
        self.validation = ValidationData(config.data, max_bins=config.validation_bins, vocab_size=vocab_size)
        self.checkpointer = Checkpointer(self.trainer, run.checkpoints, config.checkpoint)
        self.anomalies = AnomalyWatch(config.anomaly)
        self.stop = StopRequest(run.path)
        self._flops_per_token = self.trainer.arch.flops_per_token(config.data.sequence_length)

    def run(self) -> None:
        """Resume, train, save, export."""
        # Asked before the first collective: at the end one rank could already see what another is writing.
        exported = (self.run_folder.path / EXPORT).exists()
        step = self._resume()
        while step < self.config.steps:
            self._train(step)
            step += 1
            last = step == self.config.steps
            self.checkpointer.poll()
            if last or _due(step, self.config.validate_every):
                self._validate(step)
            stopping = self.stop.seen_anywhere(self.ranks.device)
            if last or stopping or _due(step, self.config.checkpoint.every_steps):
                self._save(step)
            if stopping and not last:
                self.checkpointer.wait()
                raise Interrupted(
                    f"stopped after step {step} of {self.config.steps}",
                    where=str(self.run_folder.path),
                    fix="the same command goes on from there",
                )
        self.checkpointer.wait()
        if self.config.export_hf and not exported:
            tokenizer = self.config.tokenizer or self.config.init_from
            export_hf(self.trainer.chunks, self.trainer.arch, self.run_folder.path / EXPORT, tokenizer)

    def _resume(self) -> int:
        found = self.checkpointer.load_latest()
        if found is None:
            if self.validation.sources:
                self._validate(0)
            return 0
        extra = found.state["extra"]
        self.anomalies.norms.extend(extra["grad_norms"])
        self.anomalies.skipped_in_a_row = extra.get("skipped_in_a_row", 0)
        return found.step

    def _train(self, step: int) -> None:
        started = time.perf_counter()
        batches = self.data.step(step, replica=self.ranks.data_rank, replicas=self.ranks.data_size)
        lr = self.config.optimizer.learning_rate(step, self.config.steps)
        result = train_step(self.trainer, batches, token_mean_loss, lr=lr, accept=self.anomalies.accept)
        seconds = time.perf_counter() - started
        if not result.updated:
            self._refused(step, result)
        tokens = sum(b.num_tokens for b in batches) * self.ranks.data_size
        self._log(
            step + 1,
            {
                "loss": result.loss,
                "grad_norm": result.grad_norm,
                "lr": lr,
                "trained_tokens": int(result.count),
                "tokens_per_s": tokens / seconds,
                "tflops_per_rank": self._flops_per_token * tokens / seconds / self.ranks.world_size / 1e12,
                "step_s": seconds,
                "updated": result.updated,
                "peak_memory_gib": peak_memory_gib(),
                **self.data.position(step + 1),
            },
        )

    def _refused(self, step: int, result: StepResult) -> None:
        """Name the batch; stop or go on as configured. The weights are those before the step."""
        reason = self.anomalies.reason or "no trained token in the batch"
        culprit = self.data.describe(step)
        self._log(step + 1, {"reason": reason, "batch": culprit}, phase="midtrain_anomaly")
        if self.anomalies.must_stop:
            self.checkpointer.wait()  # the save of an earlier step may still be under way
            raise GateError(
                f"step {step + 1} refused: {reason}; its batch: {json.dumps(culprit)[:1000]}",
                where=str(self.run_folder.path),
                fix="look at these bins; the last checkpoint is intact: run again with anomaly.action=skip, or "
                "start a new run with a lower learning rate",
            )

    def _validate(self, step: int) -> None:
        multiple = self.ranks.pipeline_size if self.config.parallel.virtual_pipeline else 1
        losses = {}
        for source in self.validation.sources:
            batches = self.validation.batches(
                source, replica=self.ranks.data_rank, replicas=self.ranks.data_size, multiple_of=multiple
            )
            losses[source.name] = evaluate_loss(self.trainer, batches).loss
        if losses:
            self._log(step, {"loss": losses}, phase="midtrain_validation")

    def _save(self, step: int) -> None:
        extra = {
            "data": self.data.position(step),
            "grad_norms": list(self.anomalies.norms),
            "skipped_in_a_row": self.anomalies.skipped_in_a_row,
        }
        self.checkpointer.save(step, extra)

    def _log(self, step: int, values: dict[str, Any], *, phase: str = PHASE) -> None:
        if self.ranks.is_first:
            self.run_folder.log_metrics(step, phase, values)


def prepare_trainer(config: MidtrainConfig, ranks: Ranks) -> Trainer:
    """The model of the run with its initial weights and a fresh optimizer. Refuses an illegal layout."""
    arch = config.resolve_architecture()
    check_layout(
        arch,
        config.parallel,
        world_size=ranks.world_size,
        capability=ranks.capability,
        global_batch=config.global_batch,
    )
    chunks = build_model(arch, config.parallel, precision=config.precision)
    if config.init_from is not None:
        load_hf(chunks, arch, config.init_from)
    else:
        load_random(chunks, arch, seed=config.seed)
    return build_trainer(chunks, arch, config.parallel, config.optimizer, ranks, precision=config.precision)


def _due(step: int, every: int | None) -> bool:
    return every is not None and step % every == 0
