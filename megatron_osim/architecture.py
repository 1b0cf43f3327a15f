"""A decoder-only model's shape, with the field names of Hugging Face's config.json, so that it can be read from and
written to one. No torch import.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from common.config import Config
from common.errors import UsageError, data_errors
from common.files import read_json_object

Family = Literal["qwen3", "qwen3_moe", "qwen2", "llama"]
HF_CLASSES: dict[str, str] = {
    "qwen3": "Qwen3ForCausalLM",
    "qwen3_moe": "Qwen3MoeForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "llama": "LlamaForCausalLM",
}
VOCAB_PADDING = 128
"""Vocabulary rows are padded to a multiple of this, whatever the tensor parallel size: checkpoints stay
reshardable."""


class MoeConfig(Config):
    """Mixture of experts, with the field names of Qwen3-MoE's config.json."""

    num_experts: int = Field(gt=1)
    """Experts of a layer."""
    num_experts_per_tok: int = Field(gt=0)
    """Experts that a token is routed to."""
    moe_intermediate_size: int = Field(gt=0)
    """Width of one expert."""
    norm_topk_prob: bool = True
    """The weights of a token's experts add up to 1."""
    router_aux_loss_coef: float = 0.001
    """Weight of the load-balancing loss."""


class RopeScalingConfig(Config):
    """Llama 3.1's rotary scaling (rope_type llama3). Megatron-Core fixes all its constants but the factor."""

    factor: float = 8.0
    """By how much low frequencies are stretched."""
    low_freq_factor: float = 1.0
    """Wavelengths above the original context divided by this are stretched whole."""
    high_freq_factor: float = 4.0
    """Wavelengths below the original context divided by this stay as they are."""
    original_max_position_embeddings: int = 8192
    """Context before the scaling."""

    @model_validator(mode="after")
    def _check(self) -> RopeScalingConfig:
        if (self.low_freq_factor, self.high_freq_factor, self.original_max_position_embeddings) != (1.0, 4.0, 8192):
            raise ValueError("Megatron-Core knows llama3 rotary scaling with 1.0, 4.0 and 8192 only")
        return self


class ArchitectureConfig(Config):
    """A decoder-only model of the Qwen3, Qwen2.5 or Llama-3 family."""

    model_type: Family = "qwen3"
    """Family, as in a Hugging Face config.json."""
    vocab_size: int = Field(gt=0)
    """Rows of the embedding."""
    hidden_size: int = Field(gt=0)
    """Width of the residual stream."""
    intermediate_size: int = Field(gt=0)
    """Width of the feed-forward layer."""
    num_hidden_layers: int = Field(gt=0)
    """Decoder layers."""
    num_attention_heads: int = Field(gt=0)
    """Query heads."""
    num_key_value_heads: int = Field(gt=0)
    """Key and value heads (grouped-query attention)."""
    head_dim: int = Field(gt=0)
    """Width of a head."""
    max_position_embeddings: int = 32768
    """Longest position that the model is made for."""
    rope_theta: float = 1_000_000.0
    """Base of the rotary frequencies."""
    rope_scaling: RopeScalingConfig | None = None
    """Llama 3's scaling of the rotary frequencies; None: none."""
    rms_norm_eps: float = 1e-6
    """Epsilon of the norms."""
    tie_word_embeddings: bool = False
    """Embedding and output layer are one matrix."""
    initializer_range: float = 0.02
    """Standard deviation of random weights."""
    moe: MoeConfig | None = None
    """Experts instead of dense feed-forward layers; None: dense."""
    bos_token_id: int | None = None
    """Written to the export's config.json."""
    eos_token_id: int | tuple[int, ...] | None = None
    """Written to the export's config.json."""

    @model_validator(mode="after")
    def _check(self) -> ArchitectureConfig:
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError("num_attention_heads must be a multiple of num_key_value_heads")
        if (self.model_type == "qwen3_moe") != (self.moe is not None):
            raise ValueError("qwen3_moe needs `moe`, and only qwen3_moe has it")
        return self

    @property
    def qk_norm(self) -> bool:
        """RMSNorm on each query and key head."""
        return self.model_type in ("qwen3", "qwen3_moe")

    @property
    def qkv_bias(self) -> bool:
        """A bias on the query, key and value projections."""
        return self.model_type == "qwen2"

    @property
    def padded_vocab_size(self) -> int:
        """Rows of Megatron's embedding and output layer; those past vocab_size never take part in a softmax."""
        return math.ceil(self.vocab_size / VOCAB_PADDING) * VOCAB_PADDING

    @property
    def num_parameters(self) -> int:
        """Parameters of the unpadded model."""
        h, d = self.hidden_size, self.head_dim
        q, kv = self.num_attention_heads * d, self.num_key_value_heads * d
        attention = h * (q + 2 * kv) + q * h + 2 * h
        attention += 2 * d if self.qk_norm else 0
        attention += q + 2 * kv if self.qkv_bias else 0
        mlp = 3 * h * self.intermediate_size
        if self.moe:
            mlp = self.moe.num_experts * 3 * h * self.moe.moe_intermediate_size + h * self.moe.num_experts
        embeddings = self.vocab_size * h * (1 if self.tie_word_embeddings else 2)
        return embeddings + self.num_hidden_layers * (attention + mlp) + h

    @property
    def matmul_flops_per_token(self) -> float:
        """Training FLOPs of one token in matrix products with weights: 6 per active parameter (forward and
        backward)."""
        active = self.num_parameters - self.vocab_size * self.hidden_size * (0 if self.tie_word_embeddings else 1)
        if self.moe:
            idle = self.moe.num_experts - self.moe.num_experts_per_tok
            active -= self.num_hidden_layers * idle * 3 * self.hidden_size * self.moe.moe_intermediate_size
        return 6.0 * active

    def attention_flops(self, length: int) -> float:
        """Training FLOPs of causal attention inside one segment of `length` tokens: 12 L q n^2 / 2."""
        return 6.0 * self.num_hidden_layers * self.num_attention_heads * self.head_dim * length**2

    def flops_per_token(self, sequence_length: int) -> float:
        """Training FLOPs of one token of a document that fills the whole sequence. A step of packed documents counts
        its segments instead (train_step.batch_flops)."""
        return self.matmul_flops_per_token + self.attention_flops(sequence_length) / sequence_length

    @classmethod
    def from_hf_config(cls, path: Path) -> ArchitectureConfig:
        """Read config.json, or the one in the folder `path`. Anything this model cannot express is refused."""
        file = path / "config.json" if path.is_dir() else path
        if not file.is_file():
            raise UsageError("no config.json here", where=str(path), fix="give a Hugging Face model folder")
        fix = "give the config.json of a Qwen3, Qwen2.5 or Llama-3 model"
        with data_errors(str(file), fix=fix, what="not a usable config.json"):
            return _from_hf(read_json_object(file), where=str(file))

    def to_hf_config(self, *, dtype: str = "float32") -> dict[str, Any]:
        """The content of config.json (transformers 4 and 5, SGLang and vLLM read it)."""
        out: dict[str, Any] = {
            "architectures": [HF_CLASSES[self.model_type]],
            "model_type": self.model_type,
            "attention_bias": self.qkv_bias,
            "attention_dropout": 0.0,
            "hidden_act": "silu",
            "torch_dtype": dtype,
            "use_cache": True,
            "use_sliding_window": False,
            **self.model_dump(exclude={"model_type", "moe", "rope_scaling"}, exclude_none=True),
        }
        rope: dict[str, Any] = {"rope_type": "default", "rope_theta": self.rope_theta}
        if self.rope_scaling:
            rope = {**rope, "rope_type": "llama3", **self.rope_scaling.model_dump()}
            out["rope_scaling"] = {k: v for k, v in rope.items() if k != "rope_theta"}
        out["rope_parameters"] = rope
        if self.moe:
            out |= {**self.moe.model_dump(), "decoder_sparse_step": 1, "mlp_only_layers": []}
        if self.model_type == "llama":
            out |= {"attention_bias": False, "mlp_bias": False}
            del out["use_sliding_window"]
        return out


def _from_hf(raw: dict[str, Any], *, where: str) -> ArchitectureConfig:
    def refuse(what: str) -> None:
        raise UsageError(what, where=where, fix="use a model of the Qwen3, Qwen2.5 or Llama-3 family")

    family = raw.get("model_type")
    if family not in HF_CLASSES:
        refuse(f"unknown model_type {family!r}; known: {', '.join(HF_CLASSES)}")
    if raw.get("hidden_act", "silu") != "silu":
        refuse(f"hidden_act {raw['hidden_act']!r} is not supported")
    if raw.get("use_sliding_window"):
        refuse("sliding-window attention is not supported")
    if raw.get("mlp_bias") or (raw.get("attention_bias") and family != "qwen2"):
        refuse("biases are supported on Qwen2.5's query, key and value projections only")
    if raw.get("mlp_only_layers") or raw.get("decoder_sparse_step", 1) != 1:
        refuse("models that mix dense and expert layers are not supported")
    rope = dict(raw.get("rope_scaling") or {}) | dict(raw.get("rope_parameters") or {})
    kind = rope.get("rope_type") or rope.get("type") or "default"
    if kind not in ("default", "llama3"):
        refuse(f"rope_type {kind!r} is not supported")
    scaling = {k: rope[k] for k in RopeScalingConfig.model_fields if k in rope} if kind == "llama3" else None
    # transformers 5 writes num_local_experts.
    experts = {"num_experts": raw.get("num_experts") or raw.get("num_local_experts")}
    moe = {k: raw[k] for k in MoeConfig.model_fields if k in raw} | experts if family == "qwen3_moe" else None
    heads = raw["num_attention_heads"]
    derived = {
        "num_key_value_heads": raw.get("num_key_value_heads") or heads,
        "head_dim": raw.get("head_dim") or raw["hidden_size"] // heads,
        "rope_theta": rope.get("rope_theta") or raw.get("rope_theta") or 10_000.0,
        "rope_scaling": scaling,
        "moe": moe,
    }
    known = {k: raw[k] for k in ArchitectureConfig.model_fields if raw.get(k) is not None and k not in derived}
    return ArchitectureConfig.model_validate(known | derived)
