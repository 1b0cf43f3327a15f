"""What a training run is made of, as closed configuration. No torch import: the command line reads this at start.

`megatron_osim/layout.py` checks a model against a parallel layout and reports every violation at once.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from common.config import Config
from common.tracking import WandbConfig
from megatron_osim.architecture import ArchitectureConfig as ArchitectureConfig


class ParallelConfig(Config):
    """How the model is split over ranks. Data parallel size = world size / (tensor * pipeline * context)."""

    tensor: int = Field(default=1, ge=1)
    """Ranks that share each matrix (tensor parallel)."""
    pipeline: int = Field(default=1, ge=1)
    """Stages of layers, one after the other (pipeline parallel)."""
    virtual_pipeline: int | None = Field(default=None, ge=2)
    """Model chunks per pipeline stage (interleaved 1F1B)."""
    context: int = Field(default=1, ge=1)
    """Ranks that share each sequence (context parallel)."""
    expert: int = Field(default=1, ge=1)
    """Ranks that share the experts of a layer (expert parallel)."""
    sequence_parallel: bool = False
    """Split the norms and residuals along the sequence over the tensor parallel ranks."""
    distributed_optimizer: bool = True
    """Shard optimizer state over the data parallel ranks."""
    overlap_grad_reduce: bool = False
    """Reduce gradients over the replicas while the backward pass goes on."""
    batch_p2p_comm: bool = False
    """Send and receive between pipeline stages in one batched call."""
    overlap_p2p_comm: bool = False
    """Send between pipeline stages while computing (interleaved schedule)."""
    deallocate_pipeline_outputs: bool = True
    """Free a stage's output as soon as it is sent."""
    recompute: Literal["none", "selective", "full"] = "none"
    """Activation recomputation: core attention only (selective) or whole layers (full)."""
    context_comm: Literal["p2p", "a2a", "all_gather"] = "p2p"
    """How Transformer Engine exchanges keys and values over the context parallel ranks."""

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
    """Inner dimension of the adapters."""
    alpha: float = Field(default=64.0, gt=0)
    """The adapter's output is multiplied by alpha / rank."""

    def layer_parameters(self, arch: ArchitectureConfig, tensor: int = 1) -> int:
        """Elements of A and B of one decoder layer on one tensor rank: rank (in + out) of qkv, output projection,
        gate with up, and down; the side of the hidden size is whole on every rank."""
        q, kv = arch.num_attention_heads * arch.head_dim, arch.num_key_value_heads * arch.head_dim
        return self.rank * (4 * arch.hidden_size + (2 * q + 2 * kv + 3 * arch.intermediate_size) // tensor)


class Fp8Config(Config):
    """Matrix products in FP8 (Transformer Engine on Hopper or later); weights, gradients and optimizer stay as
    `precision` says."""

    format: Literal["hybrid", "e4m3"] = "hybrid"
    """hybrid: e4m3 forward, e5m2 for gradients."""
    recipe: Literal["tensorwise", "delayed", "blockwise"] = "tensorwise"
    """Where scales come from: the tensor itself, the history of its maxima, or blocks of it."""


class OptimizerConfig(Config):
    """AdamW with fp32 master weights and a learning rate that is a pure function of the step."""

    lr: float = Field(default=1e-5, gt=0)
    """Largest learning rate."""
    min_lr: float = Field(default=0.0, ge=0)
    """Where the schedule ends."""
    schedule: Literal["constant", "linear", "cosine"] = "cosine"
    """How lr falls to min_lr after the warm-up."""
    warmup_steps: int = Field(default=0, ge=0)
    """Steps in which the learning rate rises linearly to lr."""
    decay_steps: int | None = Field(default=None, gt=0)
    """Steps until min_lr is reached, warm-up included; None = the steps of the run."""
    betas: tuple[float, float] = (0.9, 0.95)
    """AdamW's decay of the first and second moment."""
    eps: float = 1e-8
    """AdamW's epsilon."""
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
    """Steps between two checkpoints; None: the last step alone."""
    keep_last: int = Field(default=2, ge=1)
    """How many of the newest are kept."""
    keep_every: int | None = Field(default=None, gt=0)
    """Checkpoints whose step is a multiple of this are never deleted."""


class SourceConfig(Config):
    """One source of training data: packed shards."""

    name: str
    """Label in metrics."""
    prefixes: tuple[Path, ...] = Field(min_length=1)
    """PREFIXes of the shards, as `osim data prepare --output` named them."""
    weight: float | None = Field(default=None, gt=0)
    """Share of the mixture; None = in proportion to its bins (one epoch sees every bin once)."""


class DataConfig(Config):
    """What is read, in which mixture."""

    sources: tuple[SourceConfig, ...] = Field(min_length=1)
    """What is trained on."""
    sequence_length: int = Field(gt=0)
    """Tokens of one packed bin at most."""
    validation: tuple[SourceConfig, ...] = ()
    """What the validation loss is measured on, each source by itself."""

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
    loss_spike_factor: float | None = Field(default=None, gt=1)
    """The same for the loss."""
    window: int = Field(default=50, ge=5)
    """Steps whose median is the norm for both spike factors."""
    max_skips: int = Field(default=10, ge=0)
    """Most steps that may be skipped in a row; one more ends the run (exit 3)."""


class ProfileConfig(Config):
    """Record some steps with torch's profiler: RUN/profile/rankR-stepN.json, for chrome://tracing or Perfetto."""

    first_step: int = Field(default=3, ge=0)
    """Steps before it warm up."""
    steps: int = Field(default=2, ge=1)
    """Steps that are recorded."""
    ranks: tuple[int, ...] = (0,)
    """Ranks that record."""
    memory: bool = False
    """Also record allocations."""


class GenerationConfig(Config):
    """Generative evaluation during the run: the weights are exported and an evaluation recipe is run on them.

    Rank 0 evaluates while the others wait. Numbers go to metrics.jsonl (phase midtrain_evaluation), episodes to
    RUN/evaluation/step-N.
    """

    every_steps: int = Field(gt=0)
    """Steps between two evaluations."""
    recipe: Path
    """A recipe of `osim eval run` (any subset of the suite); its model.path is replaced by the export."""
    keep_exports: bool = False
    """Keep RUN/evaluation/step-N/hf; otherwise only the results stay."""
    timeout_s: float = Field(default=3600.0, gt=0)
    """Longest that the other ranks wait for one evaluation."""


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
    fp8: Fp8Config | None = None
    """Needs precision bf16, a GPU and Transformer Engine."""
    steps: int = Field(default=0, ge=0)
    """Optimizer steps; 0 = what `epochs` comes to."""
    epochs: float | None = Field(default=None, gt=0)
    """Instead of `steps`: passes over all bins of all sources (the last step of a pass may reach into the next)."""
    global_batch: int = Field(gt=0)
    """Packed bins of one optimizer step, over all replicas."""
    seed: int = 0
    """Of the random weights and of the order of the data."""
    validate_every: int | None = Field(default=None, gt=0)
    """Steps between two validations of `data.validation`; None: never."""
    validation_bins: int = Field(default=32, gt=0)
    """Bins of each validation source that are read."""
    export_hf: bool = True
    """Write RUN_DIR/hf when the run ends."""
    wandb: WandbConfig | None = None
    profile: ProfileConfig | None = None
    generation: GenerationConfig | None = None
    peak_tflops: float | None = Field(default=None, gt=0)
    """Dense peak of one device in this precision, for MFU; None = from a table of GPUs, and no MFU for others."""

    @model_validator(mode="after")
    def _check(self) -> MidtrainConfig:
        if (self.init_from is None) == (self.architecture is None):
            raise ValueError("give exactly one of init_from and architecture")
        if (self.steps == 0) == (self.epochs is None):
            raise ValueError("give exactly one of steps and epochs")
        if self.fp8 is not None and self.precision != "bf16":
            raise ValueError("fp8 needs precision bf16")
        return self

    def resolve_architecture(self) -> ArchitectureConfig:
        """`architecture`, or the one that `init_from` describes."""
        return self.architecture or ArchitectureConfig.from_hf_config(Path(str(self.init_from)))
