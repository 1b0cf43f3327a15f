"""One optimizer step over packed micro-batches with any loss, and scoring without a step. Midtraining and RL call
the same.

Every rank calls with the micro-batches of its own replica (all tensor and pipeline ranks of a replica with the same
ones). Replicas may have different numbers of micro-batches, except that interleaved pipelines need a multiple of the
pipeline size. The gradient is that of sum(loss sums) / sum(counts) over the whole global batch: exact for any split
into micro-batches, segments and replicas, because normalisation happens once, after all gradients are summed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from megatron.core import parallel_state
from megatron.core.distributed import finalize_model_grads
from megatron.core.pipeline_parallel import get_forward_backward_func
from megatron.core.utils import get_model_config, unwrap_model
from torch import Tensor

from megatron_osim.batch import PackedBatch
from megatron_osim.losses import TokenScores, token_scores, top_k_tokens
from megatron_osim.micro_batch import MicroBatch, prepare
from megatron_osim.model import DecoderModel
from megatron_osim.trainer import Trainer


@dataclass(frozen=True)
class LossSum:
    """What a loss function says about one micro-batch: sums, never means."""

    total: Tensor
    """Scalar with gradient: sum of the loss over positions."""
    count: float | Tensor
    """What the loss is divided by, summed over the global batch: tokens, or any positive weight."""
    metrics: Mapping[str, Tensor]
    """Further sums (no gradient), scalars or vectors; every micro-batch of every replica gives the same names and
    sizes."""


LossFn = Callable[[TokenScores, PackedBatch], LossSum]
Head = Callable[[Tensor, Tensor, PackedBatch], LossSum]
"""(last hidden states, this rank's rows of the output matrix, micro-batch) -> loss."""


@dataclass(frozen=True)
class StepResult:
    """One step's numbers, equal on every rank."""

    loss: float
    """sum of losses / sum of counts over the global batch."""
    count: float
    grad_norm: float
    """Before clipping."""
    updated: bool
    """False when `accept` refused the gradients: weights and optimizer are as before."""
    sums: Mapping[str, float]
    """The loss function's scalar metrics, summed over the global batch."""
    vectors: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """Its vectors, likewise."""

    def mean(self, name: str) -> float:
        """A metric divided by the count."""
        return self.sums[name] / self.count if self.count else math.nan


def token_mean_loss(scores: TokenScores, batch: PackedBatch) -> LossSum:
    """Cross-entropy weighted by values["weight"]."""
    weight_T = batch.values["weight"]
    return LossSum(-(scores.logprobs_T * weight_T).sum(), weight_T.sum(), {})


def train_step(
    trainer: Trainer,
    batches: Sequence[PackedBatch],
    loss_fn: LossFn,
    *,
    lr: float,
    temperature: float = 1.0,
    accept: Callable[[float, float], bool] | None = None,
) -> StepResult:
    """Forward, backward and one optimizer step. `accept(loss, grad_norm)` may refuse the update before it happens."""
    for model in trainer.models:
        model.train()
        model.zero_grad_buffer()
    trainer.optimizer.zero_grad()
    tally = _Tally(trainer.ranks.device)
    _run_schedule(trainer, batches, _labels_head(trainer, loss_fn, temperature), tally, forward_only=False)
    sums, vectors = tally.over_job(trainer)
    count = sums.pop("count")
    loss = sums.pop("loss") / count if count else 0.0
    grad_norm = trainer.gradient_norm()
    accepted = count > 0 and (accept is None or accept(loss, grad_norm))
    if accepted:
        trainer.apply_gradients(lr, grad_norm)
    return StepResult(loss, count, grad_norm, accepted, sums, vectors)


@torch.no_grad()
def evaluate_loss(
    trainer: Trainer, batches: Sequence[PackedBatch], loss_fn: LossFn = token_mean_loss, *, temperature: float = 1.0
) -> StepResult:
    """The loss over the global batch without gradients."""
    for model in trainer.models:
        model.eval()
    tally = _Tally(trainer.ranks.device)
    _run_schedule(trainer, batches, _labels_head(trainer, loss_fn, temperature), tally, forward_only=True)
    sums, vectors = tally.over_job(trainer)
    count = sums.pop("count")
    return StepResult(sums.pop("loss") / count if count else math.nan, count, 0.0, False, sums, vectors)


@torch.no_grad()
def forward_scores(
    trainer: Trainer, batches: Sequence[PackedBatch], *, temperature: float = 1.0
) -> list[TokenScores]:
    """Scores of this replica's micro-batches, unpadded, on every rank of the replica."""
    for model in trainer.models:
        model.eval()
    found: list[TokenScores] = []

    def keep(scores: TokenScores, batch: PackedBatch) -> LossSum:
        found.append(scores)
        return LossSum(scores.logprobs_T.sum() * 0.0, 0.0, {})

    micro_batches = _run_schedule(
        trainer,
        batches,
        _labels_head(trainer, keep, temperature),
        _Tally(trainer.ranks.device),
        forward_only=True,
    )
    out = []
    for i, (batch, part) in enumerate(zip(batches, micro_batches, strict=True)):
        if trainer.ranks.is_last_stage:
            logprobs, entropy = part.original(found[i].logprobs_T), part.original(found[i].entropy_T)
        else:
            logprobs = torch.empty(batch.labels_T.shape, device=trainer.ranks.device)
            entropy = torch.empty(batch.num_tokens, device=trainer.ranks.device)
        _from_last_stage(trainer, logprobs, entropy)
        out.append(TokenScores(logprobs, entropy))
    return out


@torch.no_grad()
def forward_top_k(trainer: Trainer, batches: Sequence[PackedBatch], k: int) -> list[Tensor]:
    """The k likeliest next tokens at each position, int64 [T, k], of this replica's micro-batches, on its ranks."""
    for model in trainer.models:
        model.eval()
    found: list[Tensor] = []

    def head(hidden: Tensor, weight_Vh: Tensor, batch: PackedBatch) -> LossSum:
        split = trainer.parallel.sequence_parallel
        found.append(top_k_tokens(hidden, weight_Vh, k, vocab_size=trainer.arch.vocab_size, sequence_parallel=split))
        return LossSum(hidden.sum() * 0.0, 0.0, {})

    micro_batches = _run_schedule(trainer, batches, head, _Tally(trainer.ranks.device), forward_only=True)
    out = []
    for i, (batch, part) in enumerate(zip(batches, micro_batches, strict=True)):
        if trainer.ranks.is_last_stage:
            ids_Tk = part.original(found[i])
        else:
            ids_Tk = torch.empty(batch.num_tokens, k, dtype=torch.int64, device=trainer.ranks.device)
        _from_last_stage(trainer, ids_Tk)
        out.append(ids_Tk)
    return out


def _from_last_stage(trainer: Trainer, *tensors: Tensor) -> None:
    """The last pipeline stage's values, in place on every rank of the replica."""
    if trainer.ranks.pipeline_size > 1:
        last = parallel_state.get_pipeline_model_parallel_last_rank()
        for tensor in tensors:
            dist.broadcast(tensor, last, group=parallel_state.get_pipeline_model_parallel_group())


def forward_logprobs(trainer: Trainer, batches: Sequence[PackedBatch], *, temperature: float = 1.0) -> list[Tensor]:
    """Log-probs of the labels ([T] each, at the predicting positions) of this replica's micro-batches."""
    return [scores.logprobs_T for scores in forward_scores(trainer, batches, temperature=temperature)]


class _Tally:
    """Sums over this rank's micro-batches, in fp64; filled on the last stage only."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.sums: dict[str, Tensor] = {}

    def add(self, loss: LossSum) -> None:
        for name, value in {"loss": loss.total, "count": loss.count, **loss.metrics}.items():
            value = torch.as_tensor(value, device=self.device).detach().double()
            self.sums[name] = self.sums[name] + value if name in self.sums else value

    def count(self) -> Tensor:
        return self.sums.get("count", torch.zeros((), dtype=torch.float64, device=self.device)).clone()

    def over_job(self, trainer: Trainer) -> tuple[dict[str, float], dict[str, list[float]]]:
        """Scalar and vector sums over all replicas, on every rank."""
        shapes = [[(name, tuple(self.sums[name].shape)) for name in sorted(self.sums)]]
        last = parallel_state.get_pipeline_model_parallel_last_rank()
        group = parallel_state.get_pipeline_model_parallel_group()
        if trainer.ranks.pipeline_size > 1:
            dist.broadcast_object_list(shapes, last, group=group, device=self.device)
        zero = torch.zeros((), dtype=torch.float64, device=self.device)
        parts = [self.sums.get(name, zero.expand(shape)).reshape(-1) for name, shape in shapes[0]]
        packed = torch.cat(parts)
        dist.all_reduce(packed, group=parallel_state.get_data_parallel_group(with_context_parallel=True))
        if trainer.ranks.pipeline_size > 1:
            dist.broadcast(packed, last, group=group)
        scalars: dict[str, float] = {}
        vectors: dict[str, list[float]] = {}
        values = iter(packed.tolist())
        for (name, shape), part in zip(shapes[0], parts, strict=True):
            found = [next(values) for _ in range(part.numel())]
            if shape:
                vectors[name] = found
            else:
                scalars[name] = found[0]
        return scalars, vectors


def _run_schedule(
    trainer: Trainer,
    batches: Sequence[PackedBatch],
    head: Head,
    tally: _Tally,
    *,
    forward_only: bool,
) -> list[MicroBatch]:
    """Megatron's schedule for this layout: plain, 1F1B or interleaved. Returns what it worked on."""
    if not batches:
        raise ValueError("every replica needs at least one micro-batch; give one whose weights are 0")
    micro_batches = prepare(trainer, batches)
    config = get_model_config(trainer.models[0])
    config.finalize_model_grads_func = partial(_finalize, tally)
    iterators = [iter(micro_batches) for _ in trainer.models]
    step = partial(_forward_step, trainer, head, tally)
    get_forward_backward_func()(
        forward_step_func=step,
        data_iterator=iterators if len(iterators) > 1 else iterators[0],
        model=trainer.models if len(trainer.models) > 1 else trainer.models[0],
        num_microbatches=len(micro_batches),
        # Megatron divides it over the context and sequence parallel ranks; only pipelines look at it.
        seq_length=micro_batches[0].num_tokens,
        micro_batch_size=1,
        decoder_seq_length=micro_batches[0].num_tokens,
        forward_only=forward_only,
    )
    return micro_batches


def _labels_head(trainer: Trainer, loss_fn: LossFn, temperature: float) -> Head:
    """Score the labels, then the loss."""

    def head(hidden: Tensor, weight_Vh: Tensor, batch: PackedBatch) -> LossSum:
        scores = token_scores(
            hidden,
            weight_Vh,
            batch.labels_T,
            vocab_size=trainer.arch.vocab_size,
            temperature=temperature,
            sequence_parallel=trainer.parallel.sequence_parallel,
        )
        return loss_fn(scores, batch)

    return head


def _forward_step(
    trainer: Trainer,
    head: Head,
    tally: _Tally,
    iterator: Iterator[MicroBatch],
    model: torch.nn.Module,
) -> tuple[Tensor, Callable[[Tensor], tuple[Tensor, Tensor, dict[str, Any]]]]:
    """Megatron's forward_step_func: the output of this chunk, and how the last stage turns it into a loss."""
    micro_batch = next(iterator)
    batch = micro_batch.batch
    hidden = model(
        input_ids=batch.token_ids_T.unsqueeze(0),
        position_ids=batch.position_ids_T.unsqueeze(0),
        attention_mask=None,
        packed_seq_params=micro_batch.packed_seq_params,
        **_padding_mask(trainer, micro_batch, unwrap_model(model)),
    )

    def loss(hidden: Tensor) -> tuple[Tensor, Tensor, dict[str, Any]]:
        result = head(hidden, unwrap_model(model).head_weight(), batch)
        tally.add(result)
        # Megatron's own token count is an integer; ours, kept in the tally, may be any weight.
        return result.total, torch.zeros((), dtype=torch.int, device=hidden.device), {}

    return hidden, loss


def _padding_mask(trainer: Trainer, micro_batch: MicroBatch, model: DecoderModel) -> dict[str, Tensor]:
    """Tells routers what is padding: the load-balancing loss must not depend on how much of it a layout needs."""
    if trainer.arch.moe is None:
        return {}
    padding_T = micro_batch.padding_T
    if trainer.parallel.sequence_parallel and not model.pre_process:
        # Megatron splits the mask on the first stage only.
        padding_T = padding_T.chunk(trainer.ranks.tensor_size)[trainer.ranks.tensor_rank]
    return {"padding_mask": padding_T.unsqueeze(0)}


def _finalize(tally: _Tally, model: list[torch.nn.Module], _num_tokens: Tensor | None, **kwargs: Any) -> None:
    """Sum gradients over the job and divide by the global count (Megatron broadcasts and sums it)."""
    finalize_model_grads(model, tally.count(), **kwargs)
