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
from megatron.core.packed_seq_params import PackedSeqParams
from megatron.core.transformer.enums import AttnMaskType
from megatron.core.transformer.module import MegatronModule
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor


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

    Segments never see each other: one call per segment, so the cost is the sum of squares of segment lengths.
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
        if config.context_parallel_size != 1:
            raise ValueError("context parallelism needs Transformer Engine")
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
        # [T, heads, d] -> [1, heads, T, d]
        q, k, v = (t.transpose(0, 1).unsqueeze(0) for t in (query, key, value))
        segments = [
            F.scaled_dot_product_attention(
                q[:, :, start:end],
                k[:, :, start:end],
                v[:, :, start:end],
                dropout_p=self.dropout if self.training else 0.0,
                is_causal=True,
                scale=self.scale,
                enable_gqa=True,
            )
            for start, end in pairwise(bounds)
        ]
        return torch.cat(segments, dim=2)[0].transpose(0, 1).flatten(1)
