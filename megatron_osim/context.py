"""Context parallelism over packed segments: which tokens each rank holds, and how shares become whole again.

Every segment is cut into 2 * C equal chunks and rank c holds the chunks c and 2C - 1 - c, so that causal attention
costs every rank the same (Megatron and Transformer Engine define it so).
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.distributed as dist
from megatron.core import parallel_state
from torch import Tensor

from megatron_osim.batch import PackedBatch


def align_segments(batch: PackedBatch, multiple: int) -> tuple[PackedBatch, Tensor]:
    """Every segment padded at its end to a multiple, and the positions [T] of the original tokens there."""
    lengths = batch.cu_seqlens.diff().long()
    padded = (lengths + multiple - 1) // multiple * multiple
    shifts = torch.cumsum(padded - lengths, 0) - (padded - lengths)
    positions_T = torch.arange(batch.num_tokens, device=lengths.device) + shifts.repeat_interleave(lengths)
    if torch.equal(padded, lengths):
        return batch, positions_T
    total = int(padded.sum())

    def spread(values: Tensor) -> Tensor:
        return values.new_zeros(total, *values.shape[1:]).index_copy_(0, positions_T, values)

    bounds = torch.cat([batch.cu_seqlens[:1], padded.cumsum(0).to(batch.cu_seqlens)])
    values = {name: spread(v) for name, v in batch.values.items()}
    return PackedBatch(spread(batch.token_ids_T), spread(batch.labels_T), bounds, values), positions_T


def context_indices(cu_seqlens: Tensor, size: int, rank: int) -> Tensor:
    """Positions in the whole micro-batch of the tokens that context parallel rank `rank` of `size` holds, in its
    order. Segments must be multiples of 2 * size."""
    parts = []
    for start, end in pairwise(cu_seqlens.tolist()):
        chunk = (end - start) // (2 * size)
        for index in (rank, 2 * size - 1 - rank):
            parts.append(torch.arange(start + index * chunk, start + (index + 1) * chunk, device=cu_seqlens.device))
    return torch.cat(parts)


def take_context(batch: PackedBatch, size: int, rank: int) -> PackedBatch:
    """The share of one context parallel rank; a segment's share stays one segment."""
    if size == 1:
        return batch
    mine = context_indices(batch.cu_seqlens, size, rank)
    values = {name: v[mine] for name, v in batch.values.items()}
    return PackedBatch(batch.token_ids_T[mine], batch.labels_T[mine], batch.cu_seqlens // size, values)


def gather_context(values_T: Tensor, cu_seqlens: Tensor) -> Tensor:
    """Values of every rank's share, in the order of the whole micro-batch; without gradient."""
    size = parallel_state.get_context_parallel_world_size()
    if size == 1:
        return values_T
    parts = [torch.empty_like(values_T) for _ in range(size)]
    dist.all_gather(parts, values_T.contiguous(), group=parallel_state.get_context_parallel_group())
    order = torch.cat([context_indices(cu_seqlens, size, rank) for rank in range(size)])
    gathered = torch.cat(parts)
    return torch.empty_like(gathered).index_copy_(0, order, gathered)
