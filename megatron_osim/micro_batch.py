"""A micro-batch as one rank of a layout works on it: padded to what the layout needs, and cut over context parallel
ranks.

Padding stands at the end of a segment or in segments of its own; it has no weight and nothing real attends to it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from megatron.core import parallel_state
from megatron.core.packed_seq_params import PackedSeqParams
from torch import Tensor

from megatron_osim.batch import PackedBatch
from megatron_osim.context import align_segments, context_indices, gather_context, take_context
from megatron_osim.trainer import Trainer

FP8_ROWS = 16
"""FP8 matrix products need a multiple of this many tokens on a rank."""


@dataclass(frozen=True)
class MicroBatch:
    """Made by `prepare`."""

    batch: PackedBatch
    """This rank's tokens; all of them without context parallelism."""
    packed_seq_params: PackedSeqParams
    """Segment bounds of the whole micro-batch, as Megatron wants them."""
    num_tokens: int
    """Of the whole micro-batch, padding included."""
    padding_T: Tensor
    """bool: which of this rank's tokens are padding; experts do not balance their load by them."""
    positions_T: Tensor
    """Where the tokens of the original batch are in the padded whole."""
    whole: Tensor
    """cu_seqlens of the padded whole."""

    def original(self, values_T: Tensor) -> Tensor:
        """This rank's values -> those of the original batch's tokens. Collective over context parallel ranks."""
        return gather_context(values_T, self.whole).index_select(0, self.positions_T)


def prepare(trainer: Trainer, batches: Sequence[PackedBatch]) -> list[MicroBatch]:
    """Pad and cut: pipelines exchange one shape, sequence and context parallelism split evenly, FP8 wants multiples
    of 16."""
    ranks, device = trainer.ranks, trainer.ranks.device
    pieces = 2 * ranks.context_size if ranks.context_size > 1 else 1
    aligned = [align_segments(batch, pieces) for batch in batches]
    rows = (ranks.tensor_size if trainer.parallel.sequence_parallel else 1) * (FP8_ROWS if trainer.fp8 else 1)
    multiple = math.lcm(pieces, ranks.context_size * rows)
    longest = max(batch.num_tokens for batch, _ in aligned)
    out = []
    for batch, positions_T in aligned:
        length = longest if ranks.pipeline_size > 1 else batch.num_tokens
        padded = batch.padded(math.ceil(length / multiple) * multiple)
        mine = take_context(padded, ranks.context_size, ranks.context_rank)
        params = _packed_seq_params(padded, device)
        padding_T = torch.ones(padded.num_tokens, dtype=torch.bool).index_fill_(0, positions_T, False)
        if ranks.context_size > 1:
            padding_T = padding_T[context_indices(padded.cu_seqlens, ranks.context_size, ranks.context_rank)]
        out.append(
            MicroBatch(
                batch=mine.to(device),
                packed_seq_params=params,
                num_tokens=padded.num_tokens,
                padding_T=padding_T.to(device),
                positions_T=positions_T.to(device),
                whole=params.cu_seqlens_q,
            )
        )
    return out


def _packed_seq_params(batch: PackedBatch, device: torch.device) -> PackedSeqParams:
    # The longest segment, not the length of the batch: Megatron's rotary embedding takes a table as long as the whole
    # batch for one of absolute positions and would not restart them.
    longest = max(batch.segment_lengths)
    bounds = batch.cu_seqlens.to(device)
    context = parallel_state.get_context_parallel_world_size()
    return PackedSeqParams(
        qkv_format="thd",
        cu_seqlens_q=bounds,
        cu_seqlens_kv=bounds,
        # Padding inside a segment is ordinary tokens here; Transformer Engine asks for it with context ranks.
        cu_seqlens_q_padded=bounds if context > 1 else None,
        cu_seqlens_kv_padded=bounds if context > 1 else None,
        max_seqlen_q=longest,
        max_seqlen_kv=longest,
    )
