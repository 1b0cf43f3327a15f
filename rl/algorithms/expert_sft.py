"""Best-of-k supervised fine-tuning on the policy's own rollouts (OdysSim's merge step; spec: papers c.4).

Of each group the `top` rollouts by reward that reach `min_reward` are trained with cross-entropy. Ties go to the
smaller episode id, so the choice does not depend on the order of rollouts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from common.config import Config
from rl.algorithms.base import GroupCounts, Needs, State, Weighed, group, scored
from rl.samples import Attempt, sample_of, weigh


class ExpertSFTConfig(Config):
    """Best-of-k selection, cross-entropy."""

    name: Literal["expert_sft"] = "expert_sft"
    """Selects this algorithm."""
    top: int = Field(default=1, ge=1)
    """Rollouts kept per prompt and seat."""
    min_reward: float = 1.0
    """Rollouts below this reward are never trained on."""


class ExpertSFT:
    """Cross-entropy with weight 1 on the chosen rollouts."""

    needs: Needs = "draft"

    def __init__(self, config: ExpertSFTConfig) -> None:
        self.config = config
        self.state: State = {}

    def weigh(self, attempts: Sequence[Attempt]) -> Weighed:
        samples, counts = [], GroupCounts()
        for _, members in group([a.draft for a in scored(attempts)], lambda r: r):
            good = [r for r in members if r.score >= self.config.min_reward]
            best = sorted(good, key=lambda r: (-r.score, r.episode_id))[: self.config.top]
            counts += GroupCounts(groups=1, trained=int(bool(best)))
            samples += [weigh(sample_of(r), cross_entropy=1.0) for r in best]
        return Weighed(tuple(samples), counts)
