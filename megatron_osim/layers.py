"""Layers for machines without Transformer Engine: RMSNorm that knows sequence parallelism, and packed attention.

They take the places of Megatron's WrappedTorchNorm and DotProductAttention in its local layer spec; both of those
refuse what we need (sequence parallelism, packed sequences).
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from megatron.core import parallel_state
from megatron.core.packed_seq_params import PackedSeqParams
from megatron.core.tensor_parallel import gather_from_sequence_parallel_region
from megatron.core.transformer.enums import AttnMaskType
from megatron.core.transformer.module import MegatronModule
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor

from megatron_osim.context import context_indices


class RMSNorm(torch.nn.RMSNorm):
    """RMSNorm computed in fp32; its weight's gradient is summed over tensor parallel ranks under sequence
    parallelism."""

    def __init__(self, config: TransformerConfig, hidden_size: int, eps: float = 1e-6, **_: Any) -> None:
        super().__init__(hidden_size, eps=eps, dtype=config.params_dtype)
        # finalize_model_grads sums the gradients of parameters that carry this mark.
        self.weight.sequence_parallel = config.sequence_parallel

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype == torch.float32:
            return super().forward(x)
        # As Hugging Face's models do: normalize in fp32, round, then scale.
        normed = F.rms_norm(x.float(), self.normalized_shape, eps=self.eps)
        return self.weight * normed.to(x.dtype)


class PackedAttention(MegatronModule):
    """Causal attention inside each segment of a packed sequence (grouped queries allowed), by torch's SDPA.

    Segments never see each other: one call per segment, so the cost is the sum of squares of segment lengths. Under
    context parallelism keys and values of all ranks are gathered (Llama 3's way); Transformer Engine, which
    exchanges them in a ring, is the fast path.
    """

    def __init__(
        self,
        config: TransformerConfig,
        layer_number: int,
        attn_mask_type: AttnMaskType,
        attention_type: str,
        attention_dropout: float | None = None,
        softmax_scale: float | None = None,
        cp_comm_type: str | None = None,
        pg_collection: Any = None,
    ) -> None:
        super().__init__(config=config)
        if attn_mask_type is not AttnMaskType.causal:
            raise ValueError("only causal attention is implemented")
        self.scale = softmax_scale or 1.0 / math.sqrt(config.kv_channels)
        self.dropout = config.attention_dropout if attention_dropout is None else attention_dropout

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None = None,
        attn_mask_type: AttnMaskType | None = None,
        attention_bias: Tensor | None = None,
        packed_seq_params: PackedSeqParams | None = None,
    ) -> Tensor:
        """query [T, heads, d], key and value [T, kv_heads, d] -> [T, heads * d], T tokens of all segments."""
        if attention_mask is not None or attention_bias is not None or packed_seq_params is None:
            raise ValueError("PackedAttention takes packed sequences (cu_seqlens), no mask and no bias")
        bounds = packed_seq_params.cu_seqlens_q.tolist()
        size = parallel_state.get_context_parallel_world_size()
        if size > 1:
            key, value = (_gather_sequence(t, packed_seq_params.cu_seqlens_q, size) for t in (key, value))
        # [T, heads, d] -> [1, heads, T, d]
        q, k, v = (t.transpose(0, 1).unsqueeze(0) for t in (query, key, value))
        parts = []
        for start, end in pairwise(bounds):
            if size == 1:
                parts.append(self._attend(q[:, :, start:end], k[:, :, start:end], v[:, :, start:end]))
                continue
            rank, chunk = parallel_state.get_context_parallel_rank(), (end - start) // (2 * size)
            for i, index in enumerate((rank, 2 * size - 1 - rank)):
                own = slice(start // size + i * chunk, start // size + (i + 1) * chunk)
                seen = slice(start, start + (index + 1) * chunk)
                parts.append(self._attend(q[:, :, own], k[:, :, seen], v[:, :, seen]))
        return torch.cat(parts, dim=2)[0].transpose(0, 1).flatten(1)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Causal attention of the last queries of a segment to all its keys so far."""
        queries, keys = q.shape[2], k.shape[2]
        mask = None
        if queries != keys:
            mask = torch.ones(queries, keys, dtype=torch.bool, device=q.device).tril(keys - queries)
        return F.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=mask,
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=mask is None,
            scale=self.scale,
            enable_gqa=True,
        )


def _gather_sequence(share: Tensor, cu_seqlens: Tensor, size: int) -> Tensor:
    """Keys or values of all context parallel ranks in the order of the micro-batch; backward sums over the ranks."""
    gathered = gather_from_sequence_parallel_region(share, group=parallel_state.get_context_parallel_group())
    order = torch.cat([context_indices(cu_seqlens, size, rank) for rank in range(size)])
    return gathered.index_select(0, order.argsort())
