"""A running average of the actor's weights: the teacher of on-policy distillation with `teacher: ema`.

Each rank averages its own shards in fp32, on the CPU. After every step: average <- decay * average + (1 - decay) *
weights; it starts as the first weights. With LoRA the weights are the merged ones (averages of A and of B would not
multiply to the average of B A); while the average is in place, B is 0. Saved as a Hugging Face folder beside the
checkpoint, so any layout can load it; in bf16 runs that rounds it to bf16 once per resume.
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
from megatron_osim.convert.parameters import ADAPTER_B, is_adapter, merged, named_parameters
from megatron_osim.model import DecoderModel


class WeightAverage:
    """The averaged shards of this rank."""

    def __init__(self, chunks: Sequence[DecoderModel], arch: ArchitectureConfig, decay: float) -> None:
        self.decay = decay
        self._chunks, self._arch = chunks, arch
        self._parameters = named_parameters(chunks, arch)
        self._base = [name for name in self._parameters if not is_adapter(name)]
        self._silenced = [p for name, p in self._parameters.items() if name.endswith(ADAPTER_B)]
        self.tensors: list[Tensor] = self._now()

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights as they are now."""
        for mean, now in zip(self.tensors, self._now(), strict=True):
            mean.mul_(self.decay).add_(now, alpha=1.0 - self.decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The model holds the average inside the block, its own weights again after it."""
        targets = [*(self._parameters[name] for name in self._base), *self._silenced]
        own = [p.detach().clone() for p in targets]
        _load(targets, [*self.tensors, *(torch.zeros_like(p) for p in self._silenced)])
        try:
            yield
        finally:
            _load(targets, own)

    def save(self, folder: Path) -> None:
        """Write the whole average as a Hugging Face folder. Collective."""
        with self.in_place():
            export_hf(self._chunks, self._arch, folder)

    def load(self, folder: Path) -> None:
        """Take up what `save` wrote, in any layout."""
        with self.in_place():
            load_hf(self._chunks, self._arch, folder)
            self.tensors = self._now()

    def _now(self) -> list[Tensor]:
        """Copies of the present weights, adapters merged."""
        now = (merged(name, self._parameters) for name in self._base)
        return [w.to(device="cpu", dtype=torch.float32, copy=True) for w in now]


@torch.no_grad()
def _load(parameters: Sequence[Parameter], values: Sequence[Tensor]) -> None:
    for parameter, value in zip(parameters, values, strict=True):
        parameter.copy_(value)
