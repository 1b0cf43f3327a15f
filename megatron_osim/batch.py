"""One micro-batch: several sequences packed end to end, each attending only to itself with positions from 0.

Everything per token is stored at the position that *predicts* it: `labels_T[t]` is the token that follows token t in
its segment, and a named value at t belongs to that label. The last position of a segment predicts nothing; its label
and values are 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class PackedBatch:
    """Tensors of one micro-batch of T tokens; T may differ from batch to batch."""

    token_ids_T: Tensor
    """int64."""
    labels_T: Tensor
    """int64 next tokens, or [T, K] to score K candidates per position."""
    cu_seqlens: Tensor
    """int32 [segments + 1]: segment i is positions cu_seqlens[i] to cu_seqlens[i + 1]."""
    values: Mapping[str, Tensor] = field(default_factory=dict)
    """Named fp32 values per position ([T] or [T, K]), e.g. loss weights, advantages, old log-probs."""

    @classmethod
    def from_sequences(
        cls, sequences: Sequence[Sequence[int] | np.ndarray], values: Mapping[str, Sequence[Any]] | None = None
    ) -> PackedBatch:
        """Pack whole sequences. values[name][i][j] belongs to token j of sequence i; token 0 is never predicted."""
        ids = [torch.as_tensor(np.asarray(s), dtype=torch.int64) for s in sequences]
        bounds = np.cumsum([0, *(len(s) for s in ids)])
        shifted = {
            name: torch.cat([_shift(torch.as_tensor(np.asarray(v), dtype=torch.float32)) for v in rows])
            for name, rows in (values or {}).items()
        }
        return cls(
            token_ids_T=torch.cat(ids),
            labels_T=torch.cat([_shift(s) for s in ids]),
            cu_seqlens=torch.as_tensor(bounds, dtype=torch.int32),
            values=shifted,
        )

    @property
    def num_tokens(self) -> int:
        """T."""
        return self.token_ids_T.shape[0]

    @property
    def segment_lengths(self) -> list[int]:
        """Tokens of each segment."""
        return self.cu_seqlens.diff().tolist()

    @property
    def position_ids_T(self) -> Tensor:
        """Position of each token in its own segment."""
        starts = self.cu_seqlens[:-1].repeat_interleave(self.cu_seqlens.diff().long())
        return torch.arange(self.num_tokens, device=starts.device) - starts

    def with_values(self, **values: Tensor) -> PackedBatch:
        """The same batch with further values per position."""
        return replace(self, values={**self.values, **values})

    def with_candidates(self, candidates: Sequence[np.ndarray], *, keep_labels: bool) -> PackedBatch:
        """Labels become [T, K]: candidates[i][j] (K token ids) for token j of sequence i, after the real label, if
        kept."""
        shifted_TK = torch.cat([_shift(torch.as_tensor(np.asarray(c), dtype=torch.int64)) for c in candidates])
        labels = [self.labels_T.unsqueeze(1), shifted_TK] if keep_labels else [shifted_TK]
        return replace(self, labels_T=torch.cat(labels, dim=1))

    def to(self, device: torch.device) -> PackedBatch:
        """Every tensor on `device`."""
        return PackedBatch(
            self.token_ids_T.to(device),
            self.labels_T.to(device),
            self.cu_seqlens.to(device),
            {name: v.to(device) for name, v in self.values.items()},
        )

    def padded(self, num_tokens: int) -> PackedBatch:
        """Padded at the end to `num_tokens` by further segments, whose labels and values are 0."""
        extra = num_tokens - self.num_tokens
        if extra < 0:
            raise ValueError(f"{self.num_tokens} tokens do not fit in {num_tokens}")
        if extra == 0:
            return self
        # Padding attends to itself: segments no longer than the longest real one keep that cheap.
        step = max(self.segment_lengths)
        ends = [*range(self.num_tokens + step, num_tokens, step), num_tokens]
        return PackedBatch(
            _extend(self.token_ids_T, extra),
            _extend(self.labels_T, extra),
            torch.cat([self.cu_seqlens, self.cu_seqlens.new_tensor(ends)]),
            {name: _extend(v, extra) for name, v in self.values.items()},
        )

    def split(self, values_T: Tensor) -> list[Tensor]:
        """The values of each segment's predicted tokens: n - 1 values (tokens 1 to n - 1) for a segment of n
        tokens."""
        starts, ends = self.cu_seqlens[:-1].tolist(), self.cu_seqlens[1:].tolist()
        return [values_T[s : e - 1] for s, e in zip(starts, ends, strict=True)]


def _shift(values: Tensor) -> Tensor:
    """From the token that a value belongs to, to the position that predicts it."""
    return torch.cat([values[1:], values.new_zeros(1, *values.shape[1:])])


def _extend(values: Tensor, extra: int) -> Tensor:
    return torch.cat([values, values.new_zeros(extra, *values.shape[1:])])
