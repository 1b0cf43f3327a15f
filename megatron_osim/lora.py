"""Low-rank adapters (LoRA, arXiv:2106.09685) on every linear layer of Megatron's decoder, for any TP, PP, DP layout.

y = W x + (alpha / rank) B A x, with W frozen. A linear layer keeps its class's behaviour and its parameters' names:
conversion and checkpoints of the base weights are untouched. Its adapter is a child module `lora` with parameters `a`
[rank, in] and `b` [out, rank]. Tensor parallelism splits B by rows under a column-parallel layer and A by columns
under a row-parallel one; only `rank` numbers per token are communicated. The other factor is the same on every tensor
rank (under sequence parallelism Megatron sums its gradient, as it does for norms). Fused layers share one A.

Invariants (tests/rl/test_lora.py, tests/rl/test_actor.py): a fresh adapter changes nothing (B is 0); the base never
changes; updates equal those of a dense model whose weights are W + (alpha / rank) B A, under every layout;
`convert.parameters.merged` is that weight. Transformer Engine's layers are adapted by the same code; that path has
not run on a GPU yet.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Literal

import torch
import torch.nn.functional as F
from megatron.core import parallel_state
from megatron.core.tensor_parallel import (
    copy_to_tensor_model_parallel_region,
    gather_from_sequence_parallel_region,
    reduce_from_tensor_model_parallel_region,
    reduce_scatter_to_sequence_parallel_region,
)
from megatron.core.tensor_parallel.layers import set_tensor_model_parallel_attributes
from megatron.core.transformer.mlp import apply_swiglu_sharded_factory
from megatron.core.transformer.utils import make_sharded_tensors_for_checkpoint
from torch import Tensor
from torch.nn import Parameter

from common.errors import UsageError
from common.seeds import derive_seed
from megatron_osim.config import ArchitectureConfig, LoRAConfig
from megatron_osim.convert.parameters import ADAPTER_A, named_parameters
from megatron_osim.model import DecoderModel

Side = Literal["column", "row"]
SIDES: Mapping[str, Side] = {
    "ColumnParallelLinear": "column",
    "TEColumnParallelLinear": "column",
    "TELayerNormColumnParallelLinear": "column",
    "RowParallelLinear": "row",
    "TERowParallelLinear": "row",
}


class Adapter(torch.nn.Module):
    """This rank's shards of A and B of one layer."""

    def __init__(self, weight: Tensor, side: Side, config: LoRAConfig, *, sequence_parallel: bool) -> None:
        super().__init__()
        self.side, self.scale, self.sequence_parallel = side, config.alpha / config.rank, sequence_parallel
        out_features, in_features = weight.shape
        self.a = Parameter(weight.new_empty(config.rank, in_features))
        self.b = Parameter(weight.new_zeros(out_features, config.rank))
        self.b.lora_scale = self.scale  # for `merged`, which sees parameters alone
        split, whole = (self.b, self.a) if side == "column" else (self.a, self.b)
        set_tensor_model_parallel_attributes(split, True, 0 if side == "column" else 1, 1)
        set_tensor_model_parallel_attributes(whole, False, -1, 1)
        whole.sequence_parallel = sequence_parallel

    def forward(self, x: Tensor) -> Tensor:
        """x: the layer's input as its rank has it -> what to add to the layer's output on this rank."""
        low = F.linear(x, self.a)
        if self.side == "column":
            # Every rank's rows of B see all tokens; the gradients of `low` are summed over the ranks.
            split, whole = gather_from_sequence_parallel_region, copy_to_tensor_model_parallel_region
        else:
            split, whole = reduce_scatter_to_sequence_parallel_region, reduce_from_tensor_model_parallel_region
        low = split(low) if self.sequence_parallel else whole(low)
        return F.linear(low, self.b) * self.scale


class _Adapted:
    """Put before a linear layer's own class by `attach`."""

    lora: Adapter

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
        out, bias = super().forward(x, *args, **kwargs)  # type: ignore[misc]
        return out + self.lora(_normed(self, x)), bias

    def sharded_state_dict(
        self, prefix: str = "", sharded_offsets: Any = (), metadata: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        base = super().sharded_state_dict(prefix, sharded_offsets, metadata)  # type: ignore[misc]
        own = f"{prefix}lora."
        adapter = make_sharded_tensors_for_checkpoint(
            self.lora.state_dict(keep_vars=True),
            own,
            {"b": 0} if self.lora.side == "column" else {"a": 1},
            sharded_offsets,
            tp_group=parallel_state.get_tensor_model_parallel_group(),
            dp_cp_group=parallel_state.get_data_parallel_group(with_context_parallel=True),
        )
        if prefix.endswith("linear_fc1."):  # gate rows, then up rows, on every rank
            adapter[f"{own}b"] = apply_swiglu_sharded_factory(adapter[f"{own}b"], sharded_offsets)
        return {key: value for key, value in base.items() if not key.startswith(own)} | adapter


def attach(chunks: Sequence[DecoderModel], arch: ArchitectureConfig, config: LoRAConfig, *, seed: int) -> None:
    """Freeze the weights that `chunks` hold and give every linear layer of the decoder an adapter.

    A is uniform within 1 / sqrt(in) (as nn.Linear), drawn from (seed, name) for the whole matrix and then cut, so it
    does not depend on the layout; B is 0. Call before `build_trainer`. Raises UsageError for experts.
    """
    if arch.moe is not None:
        raise UsageError("LoRA on experts is not built", where="lora", fix="leave lora out: train all weights")
    for chunk in chunks:
        chunk.requires_grad_(False)
        for module in list(chunk.decoder.modules()):
            if (side := _side(module)) is not None:
                module.add_module(
                    "lora",
                    Adapter(module.weight, side, config, sequence_parallel=chunk.config.sequence_parallel),
                )
                module.__class__ = _adapted(type(module))  # type: ignore[arg-type]
        if chunk.pre_process:
            # Recomputation of a whole layer gives no gradient unless its input wants one.
            chunk.embedding.register_forward_hook(_want_gradient)
    for name, parameter in named_parameters(chunks, arch).items():
        if name.endswith(ADAPTER_A):
            _draw(name, parameter, config.rank, seed)


def _side(module: torch.nn.Module) -> Side | None:
    return next((SIDES[c.__name__] for c in type(module).__mro__ if c.__name__ in SIDES), None)


@cache
def _adapted(layer: Any) -> Any:
    return type(f"Adapted{layer.__name__}", (_Adapted, layer), {})


def _normed(layer: Any, x: Tensor) -> Tensor:
    """What the layer multiplies: Transformer Engine fuses the norm before a layer into it."""
    weight = getattr(layer, "layer_norm_weight", None)
    if weight is None:
        return x
    return F.rms_norm(x.float(), (x.shape[-1],), weight.float(), layer.eps).to(x.dtype)


def _want_gradient(_module: torch.nn.Module, _inputs: Any, out: Tensor) -> Tensor:
    return out.requires_grad_() if torch.is_grad_enabled() else out


@torch.no_grad()
def _draw(name: str, a: Parameter, rank: int, seed: int) -> None:
    split = bool(getattr(a, "tensor_model_parallel", False))
    ranks = parallel_state.get_tensor_model_parallel_world_size() if split else 1
    width = a.shape[1] * ranks
    generator = torch.Generator().manual_seed(derive_seed(seed, "lora", name))
    whole = (torch.rand(rank, width, generator=generator) * 2 - 1) / math.sqrt(width)
    index = parallel_state.get_tensor_model_parallel_rank() if split else 0
    a.copy_(whole.chunk(ranks, dim=1)[index])
