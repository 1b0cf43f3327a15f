"""What a training run is made of, as closed configuration. No torch import: the command line reads this at start.

`ArchitectureConfig` uses the field names of Hugging Face's config.json, so that it can be read from and written to
one. `megatron_osim/layout.py` checks a model against a parallel layout and reports every violation at once.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from common.config import Config
from common.errors import UsageError
from common.files import read_json

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
    num_experts_per_tok: int = Field(gt=0)
    moe_intermediate_size: int = Field(gt=0)
    norm_topk_prob: bool = True
    router_aux_loss_coef: float = 0.001


class RopeScalingConfig(Config):
    """Llama 3.1's rotary scaling (rope_type llama3). Megatron-Core fixes all its constants but the factor."""

    factor: float = 8.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_position_embeddings: int = 8192

    @model_validator(mode="after")
    def _check(self) -> RopeScalingConfig:
        if (self.low_freq_factor, self.high_freq_factor, self.original_max_position_embeddings) != (1.0, 4.0, 8192):
            raise ValueError("Megatron-Core knows llama3 rotary scaling with 1.0, 4.0 and 8192 only")
        return self


class ArchitectureConfig(Config):
    """A decoder-only model of the Qwen3, Qwen2.5 or Llama-3 family."""

    model_type: Family = "qwen3"
    vocab_size: int = Field(gt=0)
    hidden_size: int = Field(gt=0)
    intermediate_size: int = Field(gt=0)
    num_hidden_layers: int = Field(gt=0)
    num_attention_heads: int = Field(gt=0)
    num_key_value_heads: int = Field(gt=0)
    head_dim: int = Field(gt=0)
    max_position_embeddings: int = 32768
    rope_theta: float = 1_000_000.0
    rope_scaling: RopeScalingConfig | None = None
    rms_norm_eps: float = 1e-6
    tie_word_embeddings: bool = False
    initializer_range: float = 0.02
    moe: MoeConfig | None = None
    bos_token_id: int | None = None
    eos_token_id: int | tuple[int, ...] | None = None

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

    def flops_per_token(self, sequence_length: int) -> float:
        """Training FLOPs of one token: 6 per matmul parameter, plus causal attention (12 L q s / 2)."""
        active = self.num_parameters - self.vocab_size * self.hidden_size * (0 if self.tie_word_embeddings else 1)
        if self.moe:
            idle = self.moe.num_experts - self.moe.num_experts_per_tok
            active -= self.num_hidden_layers * idle * 3 * self.hidden_size * self.moe.moe_intermediate_size
        attention = 6 * self.num_hidden_layers * self.num_attention_heads * self.head_dim * sequence_length
        return 6.0 * active + attention

    @classmethod
    def from_hf_config(cls, path: Path) -> ArchitectureConfig:
        """Read config.json, or the one in the folder `path`. Anything this model cannot express is refused."""
        file = path / "config.json" if path.is_dir() else path
        if not file.is_file():
            raise UsageError("no config.json here", where=str(path), fix="give a Hugging Face model folder")
        return _from_hf(read_json(file), where=str(file))

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


class ParallelConfig(Config):
    """How the model is split over ranks. Data parallel size = world size / (tensor * pipeline * context)."""

    tensor: int = Field(default=1, ge=1)
    pipeline: int = Field(default=1, ge=1)
    virtual_pipeline: int | None = Field(default=None, ge=2)
    """Model chunks per pipeline stage (interleaved 1F1B)."""
    context: int = Field(default=1, ge=1)
    expert: int = Field(default=1, ge=1)
    sequence_parallel: bool = False
    """Split the norms and residuals along the sequence over the tensor parallel ranks."""
    distributed_optimizer: bool = True
    """Shard optimizer state over the data parallel ranks."""
    overlap_grad_reduce: bool = False
    batch_p2p_comm: bool = False
    overlap_p2p_comm: bool = False
    deallocate_pipeline_outputs: bool = True
    recompute: Literal["none", "selective", "full"] = "none"
    """Activation recomputation: core attention only (selective) or whole layers (full)."""

    @property
    def model_size(self) -> int:
        """Ranks that hold one replica."""
        return self.tensor * self.pipeline * self.context

    def data(self, world_size: int) -> int:
        """Number of replicas."""
        return world_size // self.model_size


class LoRAConfig(Config):
    """Low-rank adapters on all linear layers of the decoder; everything else is frozen (megatron_osim/lora.py)."""

    rank: int = Field(default=32, ge=1)
    alpha: float = Field(default=64.0, gt=0)
    """The adapter's output is multiplied by alpha / rank."""


class OptimizerConfig(Config):
    """AdamW with fp32 master weights and a learning rate that is a pure function of the step."""

    lr: float = Field(default=1e-5, gt=0)
    min_lr: float = Field(default=0.0, ge=0)
    schedule: Literal["constant", "linear", "cosine"] = "cosine"
    warmup_steps: int = Field(default=0, ge=0)
    decay_steps: int | None = Field(default=None, gt=0)
    """Steps until min_lr is reached, warm-up included; None = the steps of the run."""
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    weight_decay: float = Field(default=0.01, ge=0)
    """Not applied to biases and norms."""
    clip_grad: float = Field(default=1.0, ge=0)
    """Global gradient norm; 0 = no clipping."""

    def learning_rate(self, step: int, total_steps: int) -> float:
        """Learning rate of step `step` (the first is 0): linear warm-up to lr, then the schedule down to min_lr."""
        if step < self.warmup_steps:
            return self.lr * (step + 1) / self.warmup_steps
        span = max(1, (self.decay_steps or total_steps) - self.warmup_steps)
        done = min(1.0, (step - self.warmup_steps) / span)
        left = {"constant": 1.0, "linear": 1.0 - done, "cosine": 0.5 * (1.0 + math.cos(math.pi * done))}[
            self.schedule
        ]
        return self.min_lr + (self.lr - self.min_lr) * left


class CheckpointConfig(Config):
    """When checkpoints are written and which are kept. The last step is always saved."""

    every_steps: int | None = Field(default=None, gt=0)
    keep_last: int = Field(default=2, ge=1)
    keep_every: int | None = Field(default=None, gt=0)
    """Checkpoints whose step is a multiple of this are never deleted."""


class SourceConfig(Config):
    """One source of training data: packed shards."""

    name: str
    prefixes: tuple[Path, ...] = Field(min_length=1)
    weight: float | None = Field(default=None, gt=0)
    """Share of the mixture; None = in proportion to its bins (one epoch sees every bin once)."""


class DataConfig(Config):
    """What is read, in which mixture."""

    sources: tuple[SourceConfig, ...] = Field(min_length=1)
    sequence_length: int = Field(gt=0)
    """Tokens of one packed bin at most."""
    validation: tuple[SourceConfig, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> DataConfig:
        for sources in (self.sources, self.validation):
            names = [s.name for s in sources]
            if len(set(names)) != len(names):
                raise ValueError(f"source names must differ: {names}")
        given = [s.weight is not None for s in self.sources]
        if any(given) and not all(given):
            raise ValueError("give a weight to every source or to none")
        return self


class AnomalyConfig(Config):
    """What to do when the loss or the gradient norm is not finite, or the gradient norm jumps."""

    action: Literal["stop", "skip"] = "stop"
    """stop: exit 3 without touching the weights; skip: leave the step out and go on."""
    spike_factor: float | None = Field(default=None, gt=1)
    """A gradient norm above this many times the median of the last `window` steps is a spike; None = not checked."""
    window: int = Field(default=50, ge=5)
    max_skips: int = Field(default=10, ge=0)
    """Most steps that may be skipped in a row; one more ends the run (exit 3)."""


class MidtrainConfig(Config):
    """Behavioural midtraining (SFT) on packed shards; the same on one CPU process and on a thousand GPUs."""

    MAY_CHANGE: ClassVar[tuple[str, ...]] = ("anomaly",)

    data: DataConfig
    init_from: Path | None = None
    """A Hugging Face folder with weights; None = random weights of `architecture`."""
    architecture: ArchitectureConfig | None = None
    """Needed for random weights; otherwise read from `init_from`."""
    tokenizer: Path | None = None
    """Folder with the tokenizer files that an export carries; None = those of `init_from`."""
    parallel: ParallelConfig = ParallelConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    anomaly: AnomalyConfig = AnomalyConfig()
    precision: Literal["fp32", "bf16"] = "fp32"
    """bf16 keeps fp32 master weights and fp32 gradient accumulation."""
    steps: int = Field(gt=0)
    global_batch: int = Field(gt=0)
    """Packed bins of one optimizer step, over all replicas."""
    seed: int = 0
    validate_every: int | None = Field(default=None, gt=0)
    validation_bins: int = Field(default=32, gt=0)
    """Bins of each validation source that are read."""
    export_hf: bool = True
    """Write RUN_DIR/hf when the run ends."""

    @model_validator(mode="after")
    def _check(self) -> MidtrainConfig:
        if (self.init_from is None) == (self.architecture is None):
            raise ValueError("give exactly one of init_from and architecture")
        return self

    def resolve_architecture(self) -> ArchitectureConfig:
        """`architecture`, or the one that `init_from` describes."""
        return self.architecture or ArchitectureConfig.from_hf_config(Path(str(self.init_from)))
