"""On-policy distillation: the student samples, a teacher grades exactly the student's tokens.

Divergence `sampled`: per-token advantage = kl_weight x clip(log pi_T(a_t | teacher context) - log pi_old(a_t |
student context)), the one-sample estimate of the reverse KL's policy gradient (GKD, arXiv:2306.13649; odyssim 4.4).
Divergence `top_k`: reverse KL over the student's k likeliest tokens and all others as one (rl/losses.py).
Both optionally on top of the group advantage of the rewards. The teacher's context is its own prompt followed by the
student's FULL stream, observations included; weights fall on the student's sampled tokens only.

Teacher: the same weights under privileged context (`self`), their running average (`ema`), or another checkpoint
served by an engine (`external`; then the privileged context is optional). Each task of a
mixture has its own teacher.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from common.config import Config
from common.redact import addresses_without_secret
from rl.algorithms.base import GroupCounts, Needs, State, Weighed, group, group_advantages
from rl.samples import Attempt, Ids, Surrogate, TeacherWeights, TrainSample, sample_of, weigh

TEACHER_WEIGHTS: dict[str, TeacherWeights] = {"self": "current", "ema": "average", "external": "external"}


class OPDConfig(Config):
    """On-policy distillation."""

    name: Literal["opd"] = "opd"
    """Selects this algorithm."""
    teacher: Literal["self", "ema", "external"] = "self"
    """Who grades: the present weights, their running average (`ema_decay`), or `external_model`."""
    external_model: Path | None = None
    """Hugging Face folder of the external teacher; same tokenizer as the student."""
    external_urls: tuple[str, ...] = ()
    """SGLang servers that serve it; none: it runs in rank 0 (transformers)."""
    external_api_key_variable: str | None = None
    """Name of the environment variable with these servers' key; None: no key."""
    divergence: Literal["sampled", "top_k"] = "sampled"
    """Reverse KL on the sampled tokens alone, or over the student's top_k tokens."""
    top_k: int = Field(default=20, ge=1)
    """Tokens per position that divergence top_k compares."""
    teacher_temperature: float = Field(default=1.0, gt=0)
    """The teacher's, relative to the sampling temperature; below 1 it teaches its likeliest answer, not its doubt."""
    privileged_context: bool = True
    """The teacher sees the task's privileged text; required unless the teacher is external."""
    kl_weight: float = Field(default=1.0, gt=0)
    """Weight of the distillation term."""
    reward_weight: float = Field(default=0.0, ge=0)
    """Weight of the group advantage of the rewards, added to the distillation term."""
    clip_low: float = Field(default=0.2, gt=0)
    """Lower clip distance of the ratio."""
    clip_high: float = Field(default=0.28, gt=0)
    """Upper clip distance."""

    _no_secret = field_validator("external_urls")(addresses_without_secret)

    @model_validator(mode="after")
    def _teacher_is_complete(self) -> OPDConfig:
        if (self.teacher == "external") != (self.external_model is not None):
            raise ValueError("external_model goes with teacher: external, and only with it")
        if self.external_urls and self.external_model is None:
            raise ValueError("external_urls serve external_model: name it too")
        if self.teacher == "external" and self.divergence == "top_k":
            raise ValueError("an external teacher grades sampled tokens: divergence top_k needs teacher self or ema")
        if self.teacher == "external" and self.teacher_temperature != 1.0:
            raise ValueError("an external teacher grades at temperature 1: teacher_temperature needs self or ema")
        if self.teacher == "self" and not self.privileged_context:
            raise ValueError("a self teacher without privileged context equals the student: nothing to learn")
        return self


class OPD:
    """Every scored draft with a teacher context is trained; there is no group unless rewards are mixed in."""

    def __init__(self, config: OPDConfig) -> None:
        self.config = config
        self.needs: Needs = "privileged" if config.privileged_context else "draft"
        self.state: State = {}
        self.surrogate = Surrogate(config.clip_low, config.clip_high)

    def weigh(self, attempts: Sequence[Attempt]) -> Weighed:
        samples: list[TrainSample] = []
        counts = GroupCounts()
        for _, members in group(attempts, lambda a: a.draft):
            alive = [a for a in members if a.draft.scored]
            taught = [a for a in alive if self._teacher_prefix(a) is not None]
            counts += GroupCounts(groups=1, trained=int(bool(taught)), no_teacher=len(alive) - len(taught))
            advantages = dict(
                zip(
                    (a.draft.episode_id for a in alive),
                    group_advantages([a.draft.score for a in alive]),
                    strict=True,
                )
            )
            for a in taught:
                advantage = self.config.reward_weight * advantages[a.draft.episode_id]
                samples.append(
                    weigh(
                        sample_of(a.draft),
                        advantage=advantage or None,
                        **self._distillation(),
                        surrogate=self.surrogate,
                        teacher_prefix=self._teacher_prefix(a),
                        teacher=TEACHER_WEIGHTS[self.config.teacher],
                        teacher_temperature=self.config.teacher_temperature,
                    )
                )
        return Weighed(tuple(samples), counts)

    def _distillation(self) -> dict[str, Any]:
        c = self.config
        return {"top_k_kl": c.kl_weight, "top_k": c.top_k} if c.divergence == "top_k" else {"reverse_kl": c.kl_weight}

    def _teacher_prefix(self, attempt: Attempt) -> Ids | None:
        if self.config.privileged_context:
            return attempt.teacher_prefix
        return attempt.draft.ids[: attempt.draft.prompt_len]
