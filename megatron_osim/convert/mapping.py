"""Which Hugging Face tensors make which Megatron parameter, and how tensor parallelism splits it.

One `Rule` per kind of parameter: `merge` builds Megatron's full tensor from the Hugging Face ones, `split` undoes it
bitwise, and `shard` / `unshard` cut it over tensor parallel ranks. Rules are pure functions on tensors; names are
resolved by `rules_of`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from megatron_osim.config import ArchitectureConfig


@dataclass(frozen=True)
class Rule:
    """Column: rows are split over tensor ranks. Subclasses change what differs."""

    hf_names: tuple[str, ...]

    def merge(self, parts: Sequence[Tensor]) -> Tensor:
        """Hugging Face tensors, in the order of hf_names -> Megatron's full tensor."""
        (only,) = parts
        return only

    def split(self, full: Tensor) -> tuple[Tensor, ...]:
        """The inverse of merge."""
        return (full,)

    def shard(self, full: Tensor, rank: int, size: int) -> Tensor:
        """The part of tensor parallel rank `rank`."""
        return full.chunk(size, dim=0)[rank]

    def unshard(self, shards: Sequence[Tensor]) -> Tensor:
        """The inverse of shard."""
        return torch.cat(list(shards), dim=0)


class Column(Rule):
    """Rows split over tensor ranks (output features)."""


class Row(Rule):
    """Columns split over tensor ranks (input features)."""

    def shard(self, full: Tensor, rank: int, size: int) -> Tensor:
        return full.chunk(size, dim=1)[rank]

    def unshard(self, shards: Sequence[Tensor]) -> Tensor:
        return torch.cat(list(shards), dim=1)


class Replicated(Rule):
    """The same on every tensor rank (norms, routers)."""

    def shard(self, full: Tensor, rank: int, size: int) -> Tensor:
        return full

    def unshard(self, shards: Sequence[Tensor]) -> Tensor:
        return shards[0]


@dataclass(frozen=True)
class Vocabulary(Column):
    """Rows are tokens, padded with zeros to a multiple."""

    rows: int
    padded_rows: int

    def merge(self, parts: Sequence[Tensor]) -> Tensor:
        (only,) = parts
        return torch.cat([only, only.new_zeros(self.padded_rows - self.rows, *only.shape[1:])])

    def split(self, full: Tensor) -> tuple[Tensor, ...]:
        return (full[: self.rows],)


@dataclass(frozen=True)
class QKV(Column):
    """q, k, v (weights or biases) -> per key-value group its query heads, its key, its value."""

    groups: int
    heads_per_group: int
    head_dim: int

    def merge(self, parts: Sequence[Tensor]) -> Tensor:
        q, k, v = (p.view(self.groups, -1, *p.shape[1:]) for p in parts)
        return torch.cat([q, k, v], dim=1).flatten(0, 1)

    def split(self, full: Tensor) -> tuple[Tensor, ...]:
        grouped = full.view(self.groups, -1, *full.shape[1:])
        sizes = (self.heads_per_group * self.head_dim, self.head_dim, self.head_dim)
        return tuple(p.flatten(0, 1) for p in grouped.split(sizes, dim=1))


class GatedColumn(Rule):
    """gate, up -> each tensor rank holds its rows of gate, then its rows of up."""

    def merge(self, parts: Sequence[Tensor]) -> Tensor:
        return torch.cat(list(parts), dim=0)

    def split(self, full: Tensor) -> tuple[Tensor, ...]:
        return full.chunk(2, dim=0)

    def shard(self, full: Tensor, rank: int, size: int) -> Tensor:
        gate, up = full.chunk(2, dim=0)
        return torch.cat([gate.chunk(size)[rank], up.chunk(size)[rank]])

    def unshard(self, shards: Sequence[Tensor]) -> Tensor:
        pairs = [s.chunk(2, dim=0) for s in shards]
        return torch.cat([gate for gate, _ in pairs] + [up for _, up in pairs])


def rule_for(arch: ArchitectureConfig, parameter: str) -> Rule:
    """The rule of a Megatron parameter whose layer and expert numbers are global ones.

    Raises KeyError for a parameter that no family has.
    """
    if layer := re.fullmatch(r"decoder\.layers\.(\d+)\.(.+)", parameter):
        return _layer_rule(arch, f"model.layers.{layer[1]}.", layer[2])
    padding = (arch.vocab_size, arch.padded_vocab_size)
    rules: dict[str, Rule] = {
        "embedding.word_embeddings.weight": Vocabulary(("model.embed_tokens.weight",), *padding),
        "decoder.final_layernorm.weight": Replicated(("model.norm.weight",)),
        "output_layer.weight": Vocabulary(("lm_head.weight",), *padding),
    }
    return rules[parameter]


def _layer_rule(arch: ArchitectureConfig, prefix: str, name: str) -> Rule:
    """Transformer Engine fuses a norm into the matrix after it, so norms have two possible names."""
    attention, mlp = prefix + "self_attn.", prefix + "mlp."
    qkv_shape = (arch.num_key_value_heads, arch.num_attention_heads // arch.num_key_value_heads, arch.head_dim)
    if expert := re.fullmatch(r"mlp\.experts\.local_experts\.(\d+)\.(linear_fc[12])\.weight", name):
        return _mlp_rule(f"{mlp}experts.{expert[1]}.", expert[2])
    if expert := re.fullmatch(r"mlp\.experts\.(linear_fc[12])\.weight(\d+)", name):
        return _mlp_rule(f"{mlp}experts.{expert[2]}.", expert[1])
    if dense := re.fullmatch(r"mlp\.(linear_fc[12])\.weight", name):
        return _mlp_rule(mlp, dense[1])
    if qkv := re.fullmatch(r"self_attention\.linear_qkv\.(weight|bias)", name):
        return QKV(tuple(f"{attention}{p}_proj.{qkv[1]}" for p in "qkv"), *qkv_shape)
    rules: dict[str, Rule] = {
        "input_layernorm.weight": Replicated((prefix + "input_layernorm.weight",)),
        "self_attention.linear_qkv.layer_norm_weight": Replicated((prefix + "input_layernorm.weight",)),
        "self_attention.q_layernorm.weight": Replicated((attention + "q_norm.weight",)),
        "self_attention.k_layernorm.weight": Replicated((attention + "k_norm.weight",)),
        "self_attention.linear_proj.weight": Row((attention + "o_proj.weight",)),
        "pre_mlp_layernorm.weight": Replicated((prefix + "post_attention_layernorm.weight",)),
        "mlp.linear_fc1.layer_norm_weight": Replicated((prefix + "post_attention_layernorm.weight",)),
        "mlp.router.weight": Replicated((mlp + "gate.weight",)),
    }
    return rules[name]


def _mlp_rule(prefix: str, matrix: str) -> Rule:
    if matrix == "linear_fc1":
        return GatedColumn((prefix + "gate_proj.weight", prefix + "up_proj.weight"))
    return Row((prefix + "down_proj.weight",))


def hf_shape(arch: ArchitectureConfig, name: str) -> tuple[int, ...]:
    """Shape of a Hugging Face tensor of this architecture."""
    h, d = arch.hidden_size, arch.head_dim
    q, kv = arch.num_attention_heads * d, arch.num_key_value_heads * d
    ffn = arch.moe.moe_intermediate_size if arch.moe else arch.intermediate_size
    experts = arch.moe.num_experts if arch.moe else 0
    endings: dict[str, tuple[int, ...]] = {
        "embed_tokens.weight": (arch.vocab_size, h),
        "lm_head.weight": (arch.vocab_size, h),
        "q_proj.weight": (q, h),
        "k_proj.weight": (kv, h),
        "v_proj.weight": (kv, h),
        "q_proj.bias": (q,),
        "k_proj.bias": (kv,),
        "v_proj.bias": (kv,),
        "o_proj.weight": (h, q),
        "q_norm.weight": (d,),
        "k_norm.weight": (d,),
        "gate_proj.weight": (ffn, h),
        "up_proj.weight": (ffn, h),
        "down_proj.weight": (h, ffn),
        "mlp.gate.weight": (experts, h),
    }
    for ending, shape in endings.items():
        if name.endswith(ending):
            return shape
    return (h,)


def global_names(arch: ArchitectureConfig) -> Iterator[str]:
    """Megatron parameters of the whole model in export order, with global layer and expert numbers (local spec's
    names)."""
    yield "embedding.word_embeddings.weight"
    for layer in range(arch.num_hidden_layers):
        prefix = f"decoder.layers.{layer}."
        yield prefix + "input_layernorm.weight"
        yield prefix + "self_attention.linear_qkv.weight"
        if arch.qkv_bias:
            yield prefix + "self_attention.linear_qkv.bias"
        if arch.qk_norm:
            yield prefix + "self_attention.q_layernorm.weight"
            yield prefix + "self_attention.k_layernorm.weight"
        yield prefix + "self_attention.linear_proj.weight"
        yield prefix + "pre_mlp_layernorm.weight"
        if arch.moe is None:
            yield prefix + "mlp.linear_fc1.weight"
            yield prefix + "mlp.linear_fc2.weight"
            continue
        yield prefix + "mlp.router.weight"
        for expert in range(arch.moe.num_experts):
            yield f"{prefix}mlp.experts.local_experts.{expert}.linear_fc1.weight"
            yield f"{prefix}mlp.experts.local_experts.{expert}.linear_fc2.weight"
    yield "decoder.final_layernorm.weight"
    if not arch.tie_word_embeddings:
        yield "output_layer.weight"
