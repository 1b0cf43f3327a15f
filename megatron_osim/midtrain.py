"""Behavioural midtraining: read, step, log, validate, save; the same loop on one CPU process and on a cluster.

Runs in every rank. Only rank 0 writes metrics and the export. A run that is started again on its folder goes on from
the newest whole checkpoint and repeats nothing: weights, optimizer, RNG, anomaly window and data position are those
of the step.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.errors import GateError, Interrupted, UsageError, data_errors
from common.run_folder import RunFolder
from common.tracking import WandbTracker
from megatron_osim.anomaly import AnomalyWatch
from megatron_osim.checkpoint import CHECKPOINT_FIX, Checkpointer
from megatron_osim.config import MidtrainConfig
from megatron_osim.convert import export_hf, load_hf, load_random
from megatron_osim.data import TrainingData, ValidationData
from megatron_osim.epochs import with_steps
from megatron_osim.evaluation import Evaluate, MidRunEvaluation
from megatron_osim.layout import check_layout
from megatron_osim.model import build_model
from megatron_osim.profiler import StepProfiler
from megatron_osim.read_ahead import ReadAhead
from megatron_osim.runtime import Ranks
from megatron_osim.runtime.memory import peak_memory_gib
from megatron_osim.runtime.stop import StopRequest
from megatron_osim.source_loss import SourceLoss
from megatron_osim.throughput import Throughput, known_peak_tflops
from megatron_osim.train_step import StepResult, evaluate_loss, train_step
from megatron_osim.trainer import Trainer, build_trainer

PHASE = "midtrain"
EXPORT = "hf"
CONSOLE_EVERY_S = 10.0


def midtrain(run: RunFolder, config: MidtrainConfig, ranks: Ranks, evaluate: Evaluate | None = None) -> None:
    """Train to config.steps. Raises Interrupted (exit 4) after a stop request, GateError (exit 3) on an anomaly.

    `evaluate` is what config.generation asks for; packages that know tasks pass it in.
    """
    Midtraining(run, config, ranks, evaluate).run()


class Midtraining:
    """One run, from its configuration to its export."""

    def __init__(
        self, run: RunFolder, config: MidtrainConfig, ranks: Ranks, evaluate: Evaluate | None = None
    ) -> None:
        config = with_steps(config)
        self.run_folder, self.config, self.ranks = run, config, ranks
        self.trainer = prepare_trainer(config, ranks)
        vocab_size = self.trainer.arch.vocab_size
        self.data = TrainingData(
            config.data, global_batch=config.global_batch, seed=config.seed, vocab_size=vocab_size
        )
        self.reader = ReadAhead(
            lambda step: self.data.step(step, replica=ranks.data_rank, replicas=ranks.data_size), config.steps
        )
        self.validation = ValidationData(config.data, max_bins=config.validation_bins, vocab_size=vocab_size)
        self.loss = SourceLoss(self.data.data_sources)
        self.checkpointer = Checkpointer(self.trainer, run.checkpoints, config.checkpoint)
        self.anomalies = AnomalyWatch(config.anomaly)
        self.stop = StopRequest(run.path)
        self.profiler = StepProfiler(config.profile, run.path / "profile", ranks.rank)
        self.evaluation = _evaluation(config, run, evaluate)
        peak = config.peak_tflops or known_peak_tflops(precision=config.precision, fp8=config.fp8 is not None)
        self.throughput = Throughput(self.trainer.arch, ranks, peak)
        self.log = MetricsLog(run, config, ranks)

    def run(self) -> None:
        """Resume, train, save, export."""
        try:
            self._run()
        finally:
            self.reader.close()
            self.log.close()

    def _run(self) -> None:
        # Asked before the first collective: at the end one rank could already see what another is writing.
        exported = (self.run_folder.path / EXPORT).exists()
        step = self._resume()
        while step < self.config.steps:
            with self.profiler.step(step):
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
            if self.evaluation and self.evaluation.due(step):
                self.log(step, self.evaluation.run(self.trainer, step), phase=f"{PHASE}_evaluation")
        self.checkpointer.wait()
        if self.config.export_hf and not exported:
            export_hf(self.trainer.chunks, self.trainer.arch, self.run_folder.path / EXPORT, _tokenizer(self.config))

    def _resume(self) -> int:
        found = self.checkpointer.load_latest()
        if found is None:
            if self.validation.sources:
                self._validate(0)
            return 0
        with data_errors(str(found.path), fix=CHECKPOINT_FIX, what="a state that is not midtraining's"):
            extra = found.state["extra"]
            self.anomalies.norms.extend(map(float, extra["grad_norms"]))
            self.anomalies.losses.extend(map(float, extra.get("losses", ())))
            self.anomalies.skipped_in_a_row = int(extra.get("skipped_in_a_row", 0))
        return found.step

    def _train(self, step: int) -> None:
        started = time.perf_counter()
        batches = self.reader.step(step)
        read_s = time.perf_counter() - started
        lr = self.config.optimizer.learning_rate(step, self.config.steps)
        result = train_step(self.trainer, batches, self.loss, lr=lr, accept=self.anomalies.accept)
        seconds = time.perf_counter() - started
        if not result.updated:
            self._refused(step, result)
        self.log(
            step + 1,
            {
                "loss": result.loss,
                "grad_norm": result.grad_norm,
                "lr": lr,
                "trained_tokens": int(result.count),
                **self.throughput.of_step(batches, seconds),
                "step_s": seconds,
                "read_s": read_s,
                "updated": result.updated,
                "peak_memory_gib": peak_memory_gib(),
                "source_loss": self.loss.means(result.vectors),
                **self.data.position(step + 1),
            },
        )

    def _refused(self, step: int, result: StepResult) -> None:
        """Name the batch; stop or go on as configured. The weights are those before the step."""
        reason = self.anomalies.reason or "no trained token in the batch"
        culprit = self.data.describe(step)
        self.log(step + 1, {"reason": reason, "batch": culprit}, phase=f"{PHASE}_anomaly")
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
            self.log(step, {"loss": losses}, phase=f"{PHASE}_validation")

    def _save(self, step: int) -> None:
        self.reader.settle()  # writers are forked: no thread may be in the middle of something
        extra = {
            "data": self.data.position(step),
            "grad_norms": list(self.anomalies.norms),
            "losses": list(self.anomalies.losses),
            "skipped_in_a_row": self.anomalies.skipped_in_a_row,
        }
        self.checkpointer.save(step, extra)


class MetricsLog:
    """metrics.jsonl, the console and W&B; only rank 0 writes."""

    def __init__(self, run: RunFolder, config: MidtrainConfig, ranks: Ranks) -> None:
        self.run, self.steps, self.active = run, config.steps, ranks.is_first
        wanted = config.wandb if ranks.is_first else None
        self.tracker = WandbTracker(wanted, run, config) if wanted else None
        self._printed = 0.0

    def __call__(self, step: int, values: Mapping[str, Any], *, phase: str = PHASE) -> None:
        if not self.active:
            return
        self.run.log_metrics(step, phase, values)
        if self.tracker:
            self.tracker.log(step, phase, values)
        if phase != PHASE or time.monotonic() - self._printed > CONSOLE_EVERY_S or step == self.steps:
            self._printed = time.monotonic()
            shown = ("loss", "grad_norm", "lr", "tokens_per_s", "mfu", "reason", "failed")
            parts = [f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in values.items() if k in shown]
            print(f"{phase} step {step}/{self.steps}: {', '.join(parts)}", flush=True)

    def close(self) -> None:
        """Also after an error."""
        if self.tracker:
            self.tracker.close()


def _evaluation(config: MidtrainConfig, run: RunFolder, evaluate: Evaluate | None) -> MidRunEvaluation | None:
    if config.generation is None:
        return None
    if evaluate is None:
        raise UsageError("this worker knows no tasks", where="generation", fix="start launch.midtrain_worker")
    if _tokenizer(config) is None:
        raise UsageError("an evaluation needs a tokenizer", where="generation", fix="set `tokenizer`")
    return MidRunEvaluation(config.generation, evaluate, run.path, _tokenizer(config))


def _tokenizer(config: MidtrainConfig) -> Path | None:
    return config.tokenizer or config.init_from


def prepare_trainer(config: MidtrainConfig, ranks: Ranks) -> Trainer:
    """The model of the run with its initial weights and a fresh optimizer. Refuses an illegal layout."""
    arch = config.resolve_architecture()
    check_layout(
        arch,
        config.parallel,
        world_size=ranks.world_size,
        capability=ranks.capability,
        global_batch=config.global_batch,
        fp8=config.fp8,
    )
    chunks = build_model(arch, config.parallel, precision=config.precision, fp8=config.fp8)
    if config.init_from is not None:
        load_hf(chunks, arch, config.init_from)
    else:
        load_random(chunks, arch, seed=config.seed)
    return build_trainer(
        chunks, arch, config.parallel, config.optimizer, ranks, precision=config.precision, fp8=config.fp8
    )


def _due(step: int, every: int | None) -> bool:
    return every is not None and step % every == 0
