"""Group-relative policy optimisation and its relatives: they differ in the baseline, the scale and the surrogate.

| variant | baseline | divided by std | ratio | source |
| --- | --- | --- | --- | --- |
| grpo | group mean | yes | token, clipped | arXiv:2402.03300 |
| dr_grpo | group mean | no | token, clipped | arXiv:2503.20783 (with aggregation: constant) |
| rloo | mean of the others | no | token, clipped | arXiv:2402.14740 |
| gspo | group mean | yes | sequence, clipped | arXiv:2507.18071 |
| cispo | group mean | yes | token, clipped and detached | arXiv:2506.13585 |
| rae | running mean per (task, seat) | no | token, clipped | role-conditioned, arXiv:2506.24119 |

`rae` needs no group: it also learns from singletons, and its baselines are state that checkpoints keep.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field, model_validator

from common.config import Config
from rl.algorithms.base import (
    GroupCounts,
    Needs,
    State,
    Weighed,
    group,
    group_advantages,
    has_variance,
    mean,
    scored,
    tally,
    turn_advantages,
)
from rl.samples import Attempt, Surrogate, sample_of, weigh

Variant = Literal["grpo", "dr_grpo", "rloo", "gspo", "cispo", "rae"]
# GSPO's length-normalised ratios live much closer to 1 (its paper, section 5.1).
DEFAULT_CLIP: dict[Variant, tuple[float, float]] = {"gspo": (3e-4, 4e-4), "cispo": (1.0, 0.28)}


class GRPOConfig(Config):
    """Group-relative policy gradient."""

    name: Literal["grpo"] = "grpo"
    """Selects this algorithm."""
    variant: Variant = "grpo"
    """How advantages are formed and ratios clipped."""
    clip_low: float | None = Field(default=None, gt=0)
    """Lower clip distance of the ratio; None: the variant's own (0.2)."""
    clip_high: float | None = Field(default=None, gt=0)
    """Upper clip distance; None: the variant's own (0.28)."""
    dual_clip: float | None = Field(default=10.0, gt=1)
    """Where the advantage is negative, the loss is at most this times its size; None: no bound."""
    turn_weight: float = Field(default=0.0, ge=0)
    """Weight of turn-level credit (base.turn_advantages) beside the episode's; for tasks that score turns."""
    rae_decay: float = Field(default=0.95, ge=0, lt=1)
    """Share of the running baseline that a step keeps (variant rae)."""

    def surrogate(self) -> Surrogate:
        """The surrogate of this variant."""
        low, high = DEFAULT_CLIP.get(self.variant, (0.2, 0.28))
        return Surrogate(
            clip_low=self.clip_low or low,
            clip_high=self.clip_high or high,
            dual_clip=self.dual_clip,
            sequence_ratio=self.variant == "gspo",
            detached=self.variant == "cispo",
        )

    @model_validator(mode="after")
    def _check(self) -> GRPOConfig:
        if self.variant == "rae" and self.turn_weight:
            raise ValueError("turn_weight compares the members of a group: variant rae has none")
        return self

    @property
    def scale_by_std(self) -> bool:
        """Whether this variant divides advantages by the group's standard deviation."""
        return self.variant not in ("dr_grpo", "rloo")

    def advantages(self, rewards: Sequence[float]) -> list[float]:
        """Group advantages of this variant."""
        return group_advantages(rewards, scale_by_std=self.scale_by_std, leave_one_out=self.variant == "rloo")


class GRPO:
    """`weigh` of the variants above."""

    needs: Needs = "draft"

    def __init__(self, config: GRPOConfig) -> None:
        self.config = config
        self.state: State = {}
        """Running baseline per seat (variant rae)."""

    def weigh(self, attempts: Sequence[Attempt]) -> Weighed:
        if self.config.variant == "rae":
            return self._weigh_by_running_baseline(scored(attempts))
        samples, counts = [], GroupCounts()
        surrogate = self.config.surrogate()
        for _, members in group([a.draft for a in attempts], lambda r: r):
            alive = [r for r in members if r.scored]
            rewards = [r.score for r in alive]
            by_turn = turn_advantages(alive, scale_by_std=self.config.scale_by_std) if self.config.turn_weight else []
            credited = any(a.any() for a in by_turn)
            counts += tally(rewards, trained=credited)
            if has_variance(rewards) or credited:
                for i, (rollout, episode) in enumerate(zip(alive, self.config.advantages(rewards), strict=True)):
                    advantage = episode + self.config.turn_weight * by_turn[i] if by_turn else episode
                    samples.append(weigh(sample_of(rollout), advantage=advantage, surrogate=surrogate))
        return Weighed(tuple(samples), counts)

    def _weigh_by_running_baseline(self, attempts: Sequence[Attempt]) -> Weighed:
        """A = r - b_seat with b_seat <- decay b_seat + (1 - decay) mean(r); the first step starts at its own mean."""
        by_seat: dict[str, list[float]] = {}
        for a in attempts:
            by_seat.setdefault(a.draft.seat, []).append(a.draft.score)
        for seat, rewards in by_seat.items():
            old, decay = self.state.get(seat, mean(rewards)), self.config.rae_decay
            self.state[seat] = decay * old + (1 - decay) * mean(rewards)
        samples, counts = [], GroupCounts()
        for (_, seat), members in group([a.draft for a in attempts], lambda r: r):
            advantages = [r.score - self.state[seat] for r in members]
            counts += GroupCounts(groups=1, trained=int(any(advantages)))
            samples += [
                weigh(sample_of(r), advantage=a, surrogate=self.config.surrogate())
                for r, a in zip(members, advantages, strict=True)
            ]
        return Weighed(tuple(samples), counts)
