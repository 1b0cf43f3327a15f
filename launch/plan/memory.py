"""Bytes of one training rank, component by component, from the architecture and the layout.

Weights, gradients and optimizer state are counted tensor by tensor as Megatron-Core shards them; `exact.py` counts
them on the trainer itself. With LoRA the base is weights alone, and only adapters have gradients and optimizer state.
Activations follow the formula of Megatron's theoretical memory report with flash
attention, extended by context parallelism and by grouped-query attention, and the loss is that of
megatron_osim/losses.py, a chunk of tokens at a time; both are estimates. What `ClusterConfig.margin_gib`
covers is not counted.
"""

from __future__ import annotations

from dataclasses import dataclass

from megatron_osim.config import ArchitectureConfig, LoRAConfig, ParallelConfig

FP32_BYTES = 4
ADAM_BYTES = 8
"""Two fp32 moments."""
MAX_LOGITS = 1 << 26
"""Elements of a chunk's logits: `megatron_osim.losses.MAX_LOGITS` (a test compares them; that module needs torch)."""


@dataclass(frozen=True)
class RankMemory:
    """Bytes of the fullest rank of one pipeline stage."""

    weights: float
    gradients: float
    optimizer: float
    activations: float
    loss: float
    """Logits of one chunk of tokens, and the gradient of the output matrix."""

    @property
    def state(self) -> float:
        """What stays between steps."""
        return self.weights + self.gradients + self.optimizer

    @property
    def total(self) -> float:
        return self.state + self.activations + self.loss


@dataclass(frozen=True)
class Workload:
    """What a rank works on. `tokens` is the micro-batch: tokens of one packed bin."""

    arch: ArchitectureConfig
    parallel: ParallelConfig
    world_size: int
    tokens: int
    micro_batches: int
    precision: str
    lora: LoRAConfig | None = None

    @property
    def bytes_per_value(self) -> int:
        return 2 if self.precision == "bf16" else FP32_BYTES


def rank_memory(work: Workload) -> RankMemory:
    """The fullest pipeline stage: the first holds most activations in flight, the last holds the logits."""
    stages = {0, work.parallel.pipeline - 1}
    return max((_stage_memory(work, stage) for stage in stages), key=lambda m: m.total)


def _stage_memory(work: Workload, stage: int) -> RankMemory:
    dense, expert = stage_parameters(work.arch, work.parallel, stage)
    parameters = dense + expert
    if work.lora is not None:
        layers = work.arch.num_hidden_layers // work.parallel.pipeline
        dense, expert = layers * work.lora.layer_parameters(work.arch, work.parallel.tensor), 0
        parameters += dense
    trained = dense + expert
    last = stage == work.parallel.pipeline - 1
    return RankMemory(
        weights=work.bytes_per_value * parameters,
        gradients=FP32_BYTES * trained,
        optimizer=_optimizer_bytes(work, dense, expert),
        activations=_activation_bytes(work, stage),
        loss=_loss_bytes(work) if last else 0.0,
    )


def stage_parameters(arch: ArchitectureConfig, p: ParallelConfig, stage: int) -> tuple[int, int]:
    """Parameters on one rank of a pipeline stage: (those replicated over data parallel ranks, expert ones)."""
    h, d, tp = arch.hidden_size, arch.head_dim, p.tensor
    q, kv = arch.num_attention_heads * d, arch.num_key_value_heads * d
    layer = h * (q + 2 * kv) // tp + q * h // tp + 2 * h
    layer += 2 * d if arch.qk_norm else 0
    layer += (q + 2 * kv) // tp if arch.qkv_bias else 0
    expert = 0
    if arch.moe:
        layer += h * arch.moe.num_experts
        expert = arch.moe.num_experts // p.expert * 3 * h * arch.moe.moe_intermediate_size // tp
    else:
        layer += 3 * h * arch.intermediate_size // tp
    layers = arch.num_hidden_layers // p.pipeline
    first, last = stage == 0, stage == p.pipeline - 1
    vocabulary = arch.padded_vocab_size * h // tp
    # A tied output layer shares the embedding on one stage and is a copy of it on another.
    tables = int(first) + int(last and not (arch.tie_word_embeddings and first))
    return layers * layer + tables * vocabulary + (h if last else 0), layers * expert


def _optimizer_bytes(work: Workload, dense: int, expert: int) -> float:
    """Adam's moments and, beside bf16 weights, an fp32 master copy, of what is trained; sharded over the data x
    context ranks."""
    per_parameter = ADAM_BYTES + (FP32_BYTES if work.precision == "bf16" else 0)
    if not work.parallel.distributed_optimizer:
        return per_parameter * (dense + expert)
    replicas = work.parallel.data(work.world_size) * work.parallel.context
    return per_parameter * (dense / replicas + expert / max(1, replicas // work.parallel.expert))


def layer_bytes_per_token(arch: ArchitectureConfig, p: ParallelConfig, bytes_per_value: int = 2) -> float:
    """Activations that one layer keeps for its backward pass, per token, on one rank."""
    h, d = arch.hidden_size, arch.head_dim
    q, kv = arch.num_attention_heads * d, arch.num_key_value_heads * d
    residual = 4 * h  # inputs of both norms and of both projections that follow them
    attention = (q + 2 * kv) + q
    mlp = 3 * arch.intermediate_size
    if arch.moe:
        mlp = arch.moe.num_experts_per_tok * (3 * arch.moe.moe_intermediate_size + 2 * h)
    split = p.tensor if p.sequence_parallel or p.tensor == 1 else 1
    return bytes_per_value * (residual / split + (attention + mlp) / p.tensor)


def activation_bytes(work: Workload) -> float:
    """Of the stage that holds most, the first: it has the most micro-batches in flight."""
    return _activation_bytes(work, 0)


def _activation_bytes(work: Workload, stage: int) -> float:
    arch, p = work.arch, work.parallel
    tokens = work.tokens / p.context
    layers = arch.num_hidden_layers / p.pipeline
    in_flight = float(min(p.pipeline - stage, work.micro_batches))
    if p.virtual_pipeline and stage == 0:
        in_flight *= 1 + (p.pipeline - 1) / (p.pipeline * p.virtual_pipeline)
    layer = tokens * layer_bytes_per_token(arch, p, work.bytes_per_value)
    if p.recompute == "full":
        split = p.tensor if p.sequence_parallel else 1
        kept = tokens * work.bytes_per_value * arch.hidden_size / split
        return in_flight * layers * kept + layer
    return in_flight * layers * layer


def _loss_bytes(work: Workload) -> float:
    """The backward pass of one chunk: its logits in the model's precision and in fp32, and their log-probs,
    probabilities, gradient and entropy term; beside them the fp32 gradient of the output matrix and its copy, unless
    it is frozen."""
    rows = work.arch.padded_vocab_size / work.parallel.tensor
    chunk = min(work.tokens / work.parallel.context * rows, MAX_LOGITS)
    table = rows * work.arch.hidden_size if work.lora is None else 0.0
    return chunk * (5 * FP32_BYTES + work.bytes_per_value) + table * (FP32_BYTES + work.bytes_per_value)


def kv_bytes_per_token(arch: ArchitectureConfig, *, tensor: int = 1, bytes_per_value: int = 2) -> float:
    """KV cache of one token on one GPU of a rollout server; past kv_heads, heads are replicated."""
    heads = max(1.0, arch.num_key_value_heads / tensor)
    return 2 * arch.num_hidden_layers * heads * arch.head_dim * bytes_per_value
