"""The policy on Megatron-Core: any TP/PP/DP layout behind five verbs. Every rank holds one and calls it in step.

Invariants (tests/rl/test_actor.py): log-probs and updates do not depend on the layout (fp32, 1e-5) nor on how the
batch is cut; every rank sees the same results; a non-finite gradient changes nothing and stops the run (exit 3).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from megatron.core import parallel_state
from torch import Tensor

from common.errors import GateError
from megatron_osim.batch import PackedBatch
from megatron_osim.convert import iter_hf_tensors
from megatron_osim.train_step import StepResult, forward_logprobs, forward_top_k, train_step
from megatron_osim.trainer import Trainer
from rl.actor.average import WeightAverage
from rl.batching import mini_batches, plan_micro_batches
from rl.config import RLConfig
from rl.losses import empty_batch, loss_fn, pack, sequence_scales
from rl.samples import Floats, Ids, TeacherWeights, TrainSample


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
        decay = config.ema_decay
        self.average = None if decay is None else WeightAverage(trainer.chunks, trainer.arch, decay)

    def logprobs(
        self,
        sequences: Sequence[Ids],
        *,
        temperature: float | None = None,
        candidates: Sequence[Ids] | None = None,
    ) -> list[Floats]:
        """Per sequence [T]: log p(ids[t] | ids[:t]), 0 for t = 0; by default at the sampling temperature.

        With candidates ([T, K] token ids each), [T, K]: their log-probs in place of the sequence's own tokens.
        """
        temperature = self.config.sampling.temperature if temperature is None else temperature
        plan, batches = self._packed(sequences, candidates)
        scored = forward_logprobs(self.trainer, batches, temperature=temperature)
        return [v.astype(np.float32, copy=False) for v in self._from_replicas(scored, batches, plan, sequences)]

    def top_k(self, sequences: Sequence[Ids], k: int) -> list[Ids]:
        """Per sequence [T, K]: the k likeliest tokens at each position given what came before."""
        plan, batches = self._packed(sequences, None)
        found = forward_top_k(self.trainer, batches, k)
        return [v.astype(np.int32) for v in self._from_replicas(found, batches, plan, sequences)]

    def prepare(self, samples: Sequence[TrainSample]) -> list[TrainSample]:
        """Fill in old log-probs, and the teacher's where its context is given and nobody else graded it."""
        now = self.logprobs([s.ids for s in samples])
        filled = [replace(s, old_logprobs=s.spread(p)) for s, p in zip(samples, now, strict=True)]
        self._with_candidates(filled)
        self._with_teacher(filled, "current")
        if any(s.teacher == "average" and s.teacher_prefix is not None for s in filled):
            if self.average is None:
                raise ValueError("a sample wants the averaged teacher, but the run keeps no average")
            with self.average.in_place():
                self._with_teacher(filled, "average")
        return filled

    def _with_candidates(self, samples: list[TrainSample]) -> None:
        """The student's likeliest tokens, in place in the list, for samples that are distilled on them."""
        for k in sorted({s.top_k for s in samples} - {0}):
            chosen = [i for i, s in enumerate(samples) if s.top_k == k]
            for i, ids in zip(chosen, self.top_k([samples[i].ids for i in chosen], k), strict=True):
                samples[i] = replace(samples[i], top_k_ids=ids)

    def _with_teacher(self, samples: list[TrainSample], teacher: TeacherWeights) -> None:
        """The log-probs of this teacher (the weights that are in place now), in place in the list."""
        taught = [i for i, s in enumerate(samples) if s.teacher_prefix is not None and s.teacher == teacher]
        for k, relative in sorted({(samples[i].top_k, samples[i].teacher_temperature) for i in taught}):
            chosen = [i for i in taught if (samples[i].top_k, samples[i].teacher_temperature) == (k, relative)]
            graded = self.logprobs(
                [samples[i].teacher_sequence().ids for i in chosen],
                temperature=relative * self.config.sampling.temperature,
                candidates=[samples[i].teacher_candidates() for i in chosen] if k else None,
            )
            for i, logprobs in zip(chosen, graded, strict=True):
                samples[i] = samples[i].with_top_k_teacher(logprobs) if k else samples[i].with_teacher(logprobs)

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
        for name in ("reverse_kl", "top_k_kl"):
            if graded := means.pop(f"{name}_tokens", 0.0):
                means[name] /= graded
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
            pack([samples[i] for i in part], [scales[i] for i in part]) if part else empty_batch() for part in mine
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
                fix="look at this step's episodes; start a new run with a lower learning rate, its init_checkpoint "
                "this one's last",
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

    def _packed(
        self, sequences: Sequence[Ids], candidates: Sequence[Ids] | None
    ) -> tuple[list[list[list[int]]], list[PackedBatch]]:
        """The plan of all ranks, and this rank's micro-batches."""
        plan = self._plan([len(ids) for ids in sequences])
        batches = []
        for part in plan[self.ranks.data_rank]:
            batch = PackedBatch.from_sequences([sequences[i] for i in part] or [_NOTHING])
            if candidates is not None:
                none = [np.zeros((len(_NOTHING), candidates[0].shape[1]), np.int32)]
                batch = batch.with_candidates([candidates[i] for i in part] or none, keep_labels=False)
            batches.append(batch)
        return plan, batches

    def _from_replicas(
        self,
        values: Sequence[Tensor],
        batches: Sequence[PackedBatch],
        plan: list[list[list[int]]],
        sequences: Sequence[Ids],
    ) -> list[npt.NDArray[Any]]:
        """Every replica's values ([T] or [T, K] per micro-batch) on every rank, in the order of `sequences`, a
        leading 0 in each."""
        mine: list[Tensor] = []
        for part, batch, scored in zip(plan[self.ranks.data_rank], batches, values, strict=True):
            mine += batch.split(scored)[: len(part)]
        order = [[i for part in parts for i in part] for parts in plan]
        longest = max(sum(len(sequences[i]) - 1 for i in indices) for indices in order)
        width = values[0].shape[1:]
        own = torch.zeros(longest, *width, dtype=values[0].dtype, device=self.ranks.device)
        if mine:
            joined = torch.cat(mine)
            own[: len(joined)] = joined
        everyone = [torch.empty_like(own) for _ in order]
        dist.all_gather(everyone, own, group=parallel_state.get_data_parallel_group())
        host = [v.cpu().numpy() for v in everyone]
        found = [np.zeros((len(ids), *width), host[0].dtype) for ids in sequences]
        for indices, flat in zip(order, host, strict=True):
            at = 0
            for i in indices:
                n = len(sequences[i]) - 1
                found[i][1:] = flat[at : at + n]
                at += n
        return found


_NOTHING = np.zeros(2, np.int32)
"""Stands in for an empty micro-batch: every rank must run the same number of them."""
