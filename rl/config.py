"""What an RL run is made of, as closed configuration. No torch import: the command line reads this at start."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from common.config import Config
from common.tracking import WandbConfig
from envs import registry
from envs.client.config import ClientConfig
from envs.detectors.base import DETECTORS
from envs.registry import TaskSpec
from megatron_osim.config import CheckpointConfig, LoRAConfig, OptimizerConfig, ParallelConfig
from rl.algorithms import AlgorithmConfig, GRPOConfig
from rl.rollout.config import RolloutConfig, WeightSyncConfig
from rl.watch.config import WatchConfig


class TaskConfig(Config):
    """One task of the mixture and the algorithm that learns it."""

    task: str
    """Name in the task registry, or package.module:function."""
    weight: float = Field(default=1.0, gt=0)
    """Share of the prompts, relative to the other tasks'."""
    algorithm: AlgorithmConfig = Field(default_factory=GRPOConfig)
    """How it is learnt: `name` is grpo, verbal_feedback, opd or expert_sft."""
    data: Path | None = None
    """File or folder with the task's published rows, for a task that ships none; read as `split`."""
    split: str = "train"
    """Split of the task's rows."""
    rows: int | None = Field(default=None, gt=0)
    """At most this many rows of the split; needed for generated tasks, which never end."""
    rows_seed: int = 0
    """Seed of generated rows."""
    profile: Literal["strict", "soul", "author"] = "strict"
    """Scorer profile whose score is the reward."""
    seats: tuple[str, ...] | None = None
    """Learnable seats; None: all policy seats of the task. The others are played by the policy too, untrained."""
    samples_per_prompt: int | None = Field(default=None, ge=1)
    """None: the run's."""
    where: dict[str, str | int | bool] = Field(default_factory=dict)
    """Keep only rows whose data has these values, e.g. {order: 0}."""

    def resolve(self) -> TaskSpec:
        """The registry's task, reading `data` where it is given. Raises UsageError."""
        spec = registry.get(self.task)
        return registry.with_data(spec, self.data, self.split) if self.data is not None else spec


class SamplingConfig(Config):
    """How rollouts are drawn. Other than temperature 1 and no truncation, rollouts are off the trained policy."""

    temperature: float = Field(default=1.0, gt=0)
    """Divides the logits before drawing."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Draw from the smallest set of tokens with this probability; 1: from all."""
    top_k: int = -1
    """Draw from the k likeliest tokens; -1: from all."""
    max_tokens: int = Field(default=512, ge=1)
    """Per turn; a task's own limit may be lower."""
    max_context_tokens: int = Field(default=2048, ge=2)
    """Prompt and sampled tokens of one seat."""


class LossConfig(Config):
    """What does not differ between samples (rl/losses.py)."""

    aggregation: Literal["token_mean", "sequence_mean", "constant"] = "token_mean"
    """Mean over all trained tokens; mean over sequences of their token means; sum / (sequences * constant_length)."""
    constant_length: int = Field(default=512, gt=0)
    """Divisor of aggregation `constant` (Dr. GRPO): the longest response."""
    kl_clip: float = Field(default=5.0, gt=0)
    """Bound on the per-token log-ratio to the teacher."""
    tis_cap: float | None = Field(default=2.0, gt=1)
    """Cap of the truncated importance weight between trainer and engine; None switches it off."""


class GateConfig(Config):
    """Bounds that stop the run (exit 3) rather than let it train on something wrong."""

    max_logprob_gap: float | None = Field(default=1e-4, gt=0)
    """Largest |engine - trainer| log-prob of a sampled token after each sync; 1e-4 suits fp32, None switches off."""
    mean_logprob_gap: float | None = Field(default=None, gt=0)
    """The same for the mean; for bf16, where single tokens may differ by 0.1."""
    max_failure_share: float = Field(default=0.2, ge=0, le=1)
    """Unscored share of a step's episodes above which the run stops."""


class RLConfig(Config):
    """Reinforcement learning of one policy on a mixture of tasks."""

    MAY_CHANGE: ClassVar[tuple[str, ...]] = ("gates", "watch", "client.max_usd", "timeout_s")

    model: Path
    """Hugging Face folder: architecture, tokenizer, and weights unless `init_checkpoint` is given."""
    init_checkpoint: Path | None = None
    """Megatron checkpoint whose weights replace those of `model`."""
    tasks: tuple[TaskConfig, ...] = Field(min_length=1)
    """The mixture. Each has its own algorithm."""
    steps: int = Field(gt=0)
    """Rounds of playing, training and weight sync."""
    groups_per_step: int = Field(default=64, ge=1)
    """Prompts per step."""
    samples_per_prompt: int = Field(default=8, ge=1)
    """Rollouts of one prompt: the size of a group."""
    mini_batches: int = Field(default=1, ge=1)
    """Optimizer steps per step, at most; whole prompts stay together."""
    max_tokens_per_micro_batch: int = Field(default=16384, gt=0)
    """Tokens of one forward and backward pass."""
    sampling: SamplingConfig = SamplingConfig()
    loss: LossConfig = LossConfig()
    rollout: RolloutConfig = RolloutConfig()
    max_staleness: Literal[0, 1] = 0
    """Steps that rollouts may be older than the weights they train. 0: play, then train. 1: the next step is played
    while this one is trained (one step off-policy); loss.tis_cap bounds the importance weights."""
    max_concurrent_episodes: int = Field(default=64, ge=1)
    """Episodes in flight at most."""
    weight_sync: WeightSyncConfig = WeightSyncConfig()
    gates: GateConfig = GateConfig()
    client: ClientConfig | None = None
    """Endpoints of judges, critics and partners; needed by tasks that ask them."""
    screen: tuple[str, ...] = ()
    """Detectors (envs/detectors) whose findings drop a rollout from its group. All are logged as rates."""
    watch: WatchConfig = WatchConfig()
    """Judge canaries, a second judge, likeness to people, bounds on detectors and time."""
    parallel: ParallelConfig = ParallelConfig()
    lora: LoRAConfig | None = None
    """Train adapters on all linear layers alone; engines and exports get them merged. Null: train all weights."""
    optimizer: OptimizerConfig = OptimizerConfig(lr=5e-6, schedule="constant")
    precision: Literal["fp32", "bf16"] = "fp32"
    """bf16 keeps fp32 master weights and fp32 gradient accumulation."""
    ema_decay: float | None = Field(default=None, gt=0, lt=1)
    """The teacher of opd `ema` is the running average of the weights: a <- decay a + (1 - decay) weights."""
    checkpoint: CheckpointConfig = CheckpointConfig()
    seed: int = 0
    """Of prompts, sampling and training."""
    wandb: WandbConfig | None = None
    export_hf: bool = True
    """Write RUN_DIR/hf when the run ends."""
    timeout_s: float = Field(default=1800.0, gt=0)
    """Longest wait for a collective, an engine or a whole step's rollouts."""

    @model_validator(mode="after")
    def _check(self) -> RLConfig:
        if self.parallel.context > 1:
            raise ValueError("parallel.context > 1 is for midtraining: losses per sequence need it whole on a rank")
        names = [t.task for t in self.tasks]
        if len(set(names)) != len(names):
            raise ValueError(f"each task appears once; these do not: {', '.join(sorted(names))}")
        if unknown := sorted({*self.screen, *self.watch.stop_on} - set(DETECTORS)):
            raise ValueError(f"no such detector: {', '.join(unknown)}; known: {', '.join(DETECTORS)}")
        external = any(t.algorithm.name == "opd" and t.algorithm.teacher == "external" for t in self.tasks)
        if external and self.sampling.temperature != 1.0:
            raise ValueError("opd with teacher: external needs sampling.temperature 1, at which the teacher grades")
        if self.wants_ema and self.ema_decay is None:
            raise ValueError("opd with teacher: ema needs ema_decay")
        return self

    @property
    def wants_ema(self) -> bool:
        return any(t.algorithm.name == "opd" and t.algorithm.teacher == "ema" for t in self.tasks)

    def samples_of(self, task: TaskConfig) -> int:
        """Rollouts per prompt of a task."""
        return task.samples_per_prompt or self.samples_per_prompt
