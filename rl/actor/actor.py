"""The policy on Megatron-Core: any TP/PP/DP layout behind five verbs. Every rank holds one and calls it in step.

Invariants (tests/rl/test_actor.py): log-probs and updates do not depend on the layout (fp32, 1e-5) nor on how the
batch is cut; every rank sees the same results; a non-finite gradient changes nothing and stops the run (exit 3).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.distributed as dist
from megatron.core import parallel_state
from torch import Tensor

from common.errors import GateError
from megatron_osim.batch import PackedBatch
from megatron_osim.convert import iter_hf_tensors
from megatron_osim.train_step import StepResult, forward_logprobs, train_step
from megatron_osim.trainer import Trainer
from rl.actor.average import WeightAverage
from rl.batching import mini_batches, plan_micro_batches
from rl.config import RLConfig
from rl.losses import LossInputs, loss_fn, pack, sequence_scales
from rl.samples import Floats, Ids, TrainSample


@dataclass(frozen=True)
class Update:
    """What one step's optimizer updates did; means are over trained tokens of the whole step."""

    optimizer_steps: int
    trained_tokens: int
    loss: float
    grad_norm: float
    """Of the last optimizer step, before clipping."""
    lr: float
    means: dict[str, float]
    """By name, see rl/losses.py."""


class Actor:
    """See the module's docstring. `average` is the running average of the weights, when the run wants one."""

    def __init__(self, trainer: Trainer, config: RLConfig) -> None:
        self.trainer, self.config, self.ranks = trainer, config, trainer.ranks
        self.average = _average(trainer, config.ema_decay)

    def logprobs(self, sequences: Sequence[Ids], *, temperature: float | None = None) -> list[Floats]:
        """Per sequence [T]: log p(ids[t] | ids[:t]), 0 for t = 0; by default at the sampling temperature."""
        temperature = self.config.sampling.temperature if temperature is None else temperature
        plan = self._plan([len(ids) for ids in sequences])
        mine = plan[self.ranks.data_rank]
        batches = [PackedBatch.from_sequences([sequences[i] for i in part] or [_NOTHING]) for part in mine]
        scored = forward_logprobs(self.trainer, batches, temperature=temperature)
        flat: list[Tensor] = []
        for part, batch, logprobs_T in zip(mine, batches, scored, strict=True):
            flat += batch.split(logprobs_T)[: len(part)]
        return self._from_replicas(flat, plan, sequences)

    def prepare(self, samples: Sequence[TrainSample]) -> list[TrainSample]:
        """Fill in old log-probs, and the teacher's where its context is given and nobody else graded it."""
        taught = [i for i, s in enumerate(samples) if s.teacher_prefix is not None and s.teacher_logprobs is None]
        by_average = [i for i in taught if samples[i].teacher == "average"]
        by_self = [i for i in taught if samples[i].teacher == "current"]
        now = self.logprobs([s.ids for s in samples] + [samples[i].teacher_sequence().ids for i in by_self])
        filled = [
            replace(s, old_logprobs=np.where(s.trainable, p, np.float32(0)))
            for s, p in zip(samples, now, strict=False)
        ]
        for i, logprobs in zip(by_self, now[len(samples) :], strict=True):
            filled[i] = filled[i].with_teacher(logprobs)
        if by_average:
            if self.average is None:
                raise ValueError("a sample wants the averaged teacher, but the run keeps no average")
            with self.average.in_place():
                then = self.logprobs([samples[i].teacher_sequence().ids for i in by_average])
            for i, logprobs in zip(by_average, then, strict=True):
                filled[i] = filled[i].with_teacher(logprobs)
        return filled

    def update(self, samples: Sequence[TrainSample], *, step: int) -> Update:
        """Train on prepared samples. No samples, no change."""
        lr = self.config.optimizer.learning_rate(step, self.config.steps)
        parts = mini_batches(samples, self.config.mini_batches, seed=self.config.seed, step=step) if samples else []
        results = [self._optimizer_step(part, lr) for part in parts]
        if self.average is not None and results:
            self.average.update()
        tokens = sum(r.count for r in results)
        names = results[0].sums if results else ()
        means = {name: sum(r.sums[name] for r in results) / tokens for name in names}
        if graded := means.pop("reverse_kl_tokens", 0.0):
            means["reverse_kl"] /= graded
        return Update(
            optimizer_steps=len(results),
            trained_tokens=int(tokens),
            loss=sum(r.loss * r.count for r in results) / tokens if results else 0.0,
            grad_norm=results[-1].grad_norm if results else 0.0,
            lr=lr,
            means=means,
        )

    def stream_weights(self) -> Iterator[tuple[str, Tensor]]:
        """(Hugging Face name, tensor) on rank 0, nothing elsewhere. Collective: run it to its end on every rank."""
        return iter_hf_tensors(self.trainer.chunks, self.trainer.arch)

    def _optimizer_step(self, samples: Sequence[TrainSample], lr: float) -> StepResult:
        scales = sequence_scales([s.trained_tokens for s in samples], self.config.loss)
        mine = self._plan([len(s.ids) for s in samples])[self.ranks.data_rank]
        batches = [
            pack([samples[i] for i in part], [scales[i] for i in part]) if part else _empty_batch() for part in mine
        ]
        result = train_step(
            self.trainer,
            batches,
            loss_fn(self.config.loss),
            lr=lr,
            temperature=self.config.sampling.temperature,
            accept=lambda loss, norm: math.isfinite(loss) and math.isfinite(norm),
        )
        if not result.updated:
            raise GateError(
                f"update refused: loss {result.loss}, gradient norm {result.grad_norm}; the weights are unchanged",
                where="actor",
                fix="resume from the last checkpoint with a lower learning rate; look at this step's episodes",
            )
        return result

    def _plan(self, lengths: Sequence[int]) -> list[list[list[int]]]:
        interleaved = self.trainer.parallel.virtual_pipeline is not None
        return plan_micro_batches(
            lengths,
            ranks=self.ranks.data_size,
            max_tokens=self.config.max_tokens_per_micro_batch,
            multiple_of=self.ranks.pipeline_size if interleaved else 1,
        )

    def _from_replicas(
        self, mine: Sequence[Tensor], plan: list[list[list[int]]], sequences: Sequence[Ids]
    ) -> list[Floats]:
        """Every replica's results on every rank, in the order of `sequences`; each gets its leading 0."""
        order = [[i for part in parts for i in part] for parts in plan]
        longest = max(sum(len(sequences[i]) - 1 for i in indices) for indices in order)
        own = torch.zeros(longest, dtype=torch.float32, device=self.ranks.device)
        if mine:
            joined = torch.cat(list(mine)).float()
            own[: len(joined)] = joined
        everyone = [torch.empty_like(own) for _ in order]
        dist.all_gather(everyone, own, group=parallel_state.get_data_parallel_group())
        found: list[Floats] = [np.zeros(len(ids), np.float32) for ids in sequences]
        for indices, values in zip(order, everyone, strict=True):
            at, flat = 0, values.cpu().numpy()
            for i in indices:
                n = len(sequences[i]) - 1
                found[i][1:] = flat[at : at + n]
                at += n
        return found


def _average(trainer: Trainer, decay: float | None) -> WeightAverage | None:
    return None if decay is None else WeightAverage(trainer.chunks, trainer.arch, decay)


_NOTHING = np.zeros(2, np.int32)
"""Stands in for an empty micro-batch: every rank must run the same number of them."""


def _empty_batch() -> PackedBatch:
    zeros = {name: [np.zeros(2, np.float32)] for name in LossInputs.__dataclass_fields__}
    return PackedBatch.from_sequences([_NOTHING], zeros)
