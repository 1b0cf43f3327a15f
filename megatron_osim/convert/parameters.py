"""This rank's parameters under their global names: which layers of a pipeline and which experts it holds.

Both layer specs are shown under the local spec's names, so that conversion code knows one set of names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from megatron.core import parallel_state
from megatron.core.transformer.transformer_layer import get_transformer_layer_offset
from torch import Tensor
from torch.nn import Parameter

from megatron_osim.config import ArchitectureConfig
from megatron_osim.model import DecoderModel

_FROM_TE = (
    (r"(decoder\.layers\.\d+\.)self_attention\.linear_qkv\.layer_norm_weight", r"\1input_layernorm.weight"),
    (r"(decoder\.layers\.\d+\.)mlp\.linear_fc1\.layer_norm_weight", r"\1pre_mlp_layernorm.weight"),
    (r"(.*\.experts\.)(linear_fc[12])\.weight(\d+)", r"\1local_experts.\3.\2.weight"),
)

ADAPTER_A, ADAPTER_B = ".lora.a", ".lora.b"
"""Endings of the adapters of megatron_osim/lora.py, which have no Hugging Face counterpart."""


def is_adapter(name: str) -> bool:
    return name.endswith((ADAPTER_A, ADAPTER_B))


def named_parameters(chunks: Sequence[DecoderModel], arch: ArchitectureConfig) -> dict[str, Parameter]:
    """Global name -> this rank's shard. A tied output layer is listed only as the embedding it copies on this
    rank."""
    out: dict[str, Parameter] = {}
    for chunk in chunks:
        layer_offset = get_transformer_layer_offset(chunk.config, vp_stage=chunk.vp_stage)
        for local_name, parameter in chunk.named_parameters():
            name = local_name
            for pattern, replacement in _FROM_TE:
                name = re.sub(f"^{pattern}$", replacement, name)
            name = _renumber(name, r"(decoder\.layers\.)(\d+)", layer_offset)
            if arch.moe:
                experts = arch.moe.num_experts // parallel_state.get_expert_model_parallel_world_size()
                first = experts * parallel_state.get_expert_model_parallel_rank()
                name = _renumber(name, r"(local_experts\.)(\d+)", first)
            if name == "output_layer.weight" and arch.tie_word_embeddings:
                name = "embedding.word_embeddings.weight"
            out[name] = parameter
    return out


def merged(name: str, parameters: Mapping[str, Parameter]) -> Tensor:
    """This rank's shard of a weight with its adapter, if it has one, added in; a new tensor then. Names are those of
    `named_parameters`."""
    weight = parameters[name].detach()
    stem = name.removesuffix(".weight")
    if stem == name or stem + ADAPTER_A not in parameters:
        return weight
    a, b = parameters[stem + ADAPTER_A], parameters[stem + ADAPTER_B]
    delta = b.lora_scale * (b.detach().float() @ a.detach().float())
    return (weight.float() + delta).to(weight.dtype)


def _renumber(name: str, pattern: str, offset: int) -> str:
    return re.sub(pattern, lambda m: f"{m[1]}{int(m[2]) + offset}", name)
