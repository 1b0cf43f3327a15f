"""Verbal feedback (Ditto, arXiv:2605.20506): learn without the feedback what was said with it.

Draft y0 ~ pi(.|x) is scored; feedback h on it; refined y1 ~ pi(.|x, h) through the same environment, scorer and
scale. Loss = group loss over {y0, y1} normalised jointly, every member under the plain prompt x (y1 is retargeted, so
its ratio starts at 1 and it has no rollout log-probs), plus the feedback loss: {y1} under (x, h) in its own group.

| objective | trains |
| --- | --- |
| ditto | both losses |
| no_lfb | the group loss only |
| copy_only | only y1 under x, with the joint group's advantages |
| sdpo_token | y0 under x by reverse KL to the same weights under (x, h), on sampled tokens; rewards play no part |
| sdpo_topk | the same on the student's `top_k` likeliest tokens (arXiv:2601.20802) |
| erl | y0 by its group's advantage; y1 under x by cross-entropy where it beat its draft |
| rltf | y1 under x by cross-entropy weighted exp(A / temperature), A over the joint group |

The last five are the ablations of the paper's figure 4 (spec: papers c.5) in this trainer's components.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from common.config import Config
from rl.algorithms.base import GroupCounts, Needs, State, Weighed, group, group_advantages, has_variance, tally
from rl.samples import Attempt, Ids, Rollout, Surrogate, TrainSample, retarget, sample_of, weigh

Objective = Literal["ditto", "no_lfb", "copy_only", "sdpo_token", "sdpo_topk", "erl", "rltf"]
Refined = tuple[Rollout, Rollout, Ids]
"""A draft, its scored refinement, and the refinement's prompt without the feedback."""


class VerbalFeedbackConfig(Config):
    """Draft, feedback, refinement; both trained jointly."""

    name: Literal["verbal_feedback"] = "verbal_feedback"
    """Selects this algorithm."""
    objective: Objective = "ditto"
    """ditto: drafts and refinements trained jointly; the others are ablations."""
    clip_low: float = Field(default=0.2, gt=0)
    """Lower clip distance of the ratio."""
    clip_high: float = Field(default=0.28, gt=0)
    """Upper clip distance."""
    dual_clip: float | None = Field(default=10.0, gt=1)
    """Where the advantage is negative, the loss is at most this times its size; None: no bound."""
    feedback_loss_weight: float = Field(default=1.0, ge=0)
    """Weight of the refinements trained under prompt and feedback."""
    kl_weight: float = Field(default=1.0, gt=0)
    """Weight of the reverse KL (objectives sdpo_token, sdpo_topk)."""
    top_k: int = Field(default=20, ge=1)
    """Tokens per position that objective sdpo_topk compares."""
    rltf_temperature: float = Field(default=1.0, gt=0)
    """Divides the log-ratio between plain and feedback prompt (objective rltf)."""
    rltf_max_weight: float = Field(default=20.0, gt=0)
    """Cap of that weight (objective rltf)."""


class VerbalFeedback:
    """`weigh` of the objectives above."""

    needs: Needs = "feedback"

    def __init__(self, config: VerbalFeedbackConfig) -> None:
        self.config = config
        self.state: State = {}
        self.surrogate = Surrogate(config.clip_low, config.clip_high, config.dual_clip)

    def weigh(self, attempts: Sequence[Attempt]) -> Weighed:
        own = {"sdpo_token": self._sdpo, "sdpo_topk": self._sdpo, "erl": self._erl, "rltf": self._rltf}
        objective = own.get(self.config.objective, self._ditto)
        samples: list[TrainSample] = []
        counts = GroupCounts()
        for _, members in group(attempts, lambda a: a.draft):
            drafts = [a for a in members if a.draft.scored]
            pairs = [(a.draft, a.refined, a.plain_prefix) for a in drafts]
            refined = [(d, y, x) for d, y, x in pairs if y is not None and y.scored and x is not None]
            rewards = [*(a.draft.score for a in drafts), *(y.score for _, y, _ in refined)]
            imperfect = sum(a.draft.score < 1.0 for a in drafts)
            counts += tally(rewards, no_teacher=max(0, imperfect - len(refined)))
            samples += objective(drafts, refined, group_advantages(rewards) if has_variance(rewards) else [])
        return Weighed(tuple(samples), counts)

    def _ditto(self, drafts: list[Attempt], refined: list[Refined], joint: list[float]) -> list[TrainSample]:
        objective, found = self.config.objective, []
        if joint and objective != "copy_only":
            found += [self._policy(sample_of(a.draft), A) for a, A in zip(drafts, joint, strict=False)]
        if joint:
            found += [self._policy(_copy(r), A) for r, A in zip(refined, joint[len(drafts) :], strict=True)]
        own, weight = [y.score for _, y, _ in refined], self.config.feedback_loss_weight
        if objective == "ditto" and weight and has_variance(own):
            advantages = group_advantages(own)
            found += [
                self._policy(sample_of(y, "feedback"), weight * A)
                for (_, y, _), A in zip(refined, advantages, strict=True)
            ]
        return found

    def _sdpo(self, drafts: list[Attempt], refined: list[Refined], joint: list[float]) -> list[TrainSample]:
        taught = [(sample_of(a.draft), a.teacher_prefix) for a in drafts if a.teacher_prefix is not None]
        weight, k = self.config.kl_weight, self.config.top_k
        if self.config.objective == "sdpo_topk":
            return [weigh(s, top_k_kl=weight, top_k=k, teacher_prefix=prefix) for s, prefix in taught]
        return [weigh(s, reverse_kl=weight, surrogate=self.surrogate, teacher_prefix=prefix) for s, prefix in taught]

    def _erl(self, drafts: list[Attempt], refined: list[Refined], joint: list[float]) -> list[TrainSample]:
        rewards = [a.draft.score for a in drafts]
        own = group_advantages(rewards) if has_variance(rewards) else []
        found = [self._policy(sample_of(a.draft), A) for a, A in zip(drafts, own, strict=False)]
        return found + [weigh(_copy(r), cross_entropy=1.0) for r in refined if r[1].score > r[0].score]

    def _rltf(self, drafts: list[Attempt], refined: list[Refined], joint: list[float]) -> list[TrainSample]:
        limit, temperature = math.log(self.config.rltf_max_weight), self.config.rltf_temperature
        weights = [math.exp(min(limit, A / temperature)) for A in joint[len(drafts) :]]
        return [weigh(_copy(r), cross_entropy=w) for r, w in zip(refined, weights, strict=False)]

    def _policy(self, sample: TrainSample, advantage: float) -> TrainSample:
        return weigh(sample, advantage=advantage, surrogate=self.surrogate)


def _copy(refined: Refined) -> TrainSample:
    """y1 under the prompt without feedback."""
    _, rollout, plain_prefix = refined
    return retarget(sample_of(rollout), plain_prefix)
