"""A running average of the actor's weights: the teacher of on-policy distillation with `teacher: ema`.

Each rank averages its own shards in fp32, on the CPU. After every step: average <- decay * average + (1 - decay) *
weights; it starts as the first weights. Saved as a Hugging Face folder beside the checkpoint, so any layout can load
it; in bf16 runs that rounds it to bf16 once per resume.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import Parameter

from megatron_osim.config import ArchitectureConfig
from megatron_osim.convert import export_hf, load_hf
from megatron_osim.model import DecoderModel


class WeightAverage:
    """The averaged shards of this rank."""

    def __init__(self, chunks: Sequence[DecoderModel], arch: ArchitectureConfig, decay: float) -> None:
        self.decay = decay
        self._chunks, self._arch = chunks, arch
        self._parameters: list[Parameter] = [p for chunk in chunks for p in chunk.parameters()]
        self.tensors: list[Tensor] = [_copy(p) for p in self._parameters]

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights as they are now."""
        for mean, parameter in zip(self.tensors, self._parameters, strict=True):
            mean.mul_(self.decay).add_(parameter.detach().to(mean), alpha=1.0 - self.decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The model holds the average inside the block, its own weights again after it."""
        own = [p.detach().clone() for p in self._parameters]
        self._load(self.tensors)
        try:
            yield
        finally:
            self._load(own)

    def save(self, folder: Path) -> None:
        """Write the whole average as a Hugging Face folder. Collective."""
        with self.in_place():
            export_hf(self._chunks, self._arch, folder)

    def load(self, folder: Path) -> None:
        """Take up what `save` wrote, in any layout."""
        with self.in_place():
            load_hf(self._chunks, self._arch, folder)
            self.tensors = [_copy(p) for p in self._parameters]

    @torch.no_grad()
    def _load(self, values: Sequence[Tensor]) -> None:
        for parameter, value in zip(self._parameters, values, strict=True):
            parameter.copy_(value)


def _copy(parameter: Parameter) -> Tensor:
    return parameter.detach().to(device="cpu", dtype=torch.float32, copy=True)
