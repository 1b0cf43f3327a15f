"""What the trainer trains on: token sequences with per-token weights on the loss components it knows.

Pure data (numpy, no torch), made on rank 0 by `rl.algorithms`, broadcast to every actor rank, consumed by
`rl.actor`. Invariants (tests/rl):
* a weight is non-zero only on trainable tokens, i.e. tokens that this seat's engine sampled;
* `rollout_logprobs` exist only where the sample's context is the one the engine saw: a retargeted sample has none;
* an unscored rollout has reward None and never becomes a sample.

Index convention: entry t of every per-token array belongs to ids[t], predicted from ids[:t].
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from envs.types import Episode, Score, Seat, SeatTrace

Ids = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
TeacherWeights = Literal["current", "average", "external"]
Context = Literal["plain", "feedback"]
"""The prompt a sample is trained under: the task's own, or the one with verbal feedback in it."""


@dataclass(frozen=True)
class Rollout:
    """One learnable seat of one played episode, cut after its last sampled token. Arrays are [T]."""

    prompt_id: str
    """The task instance: rollouts of one prompt and seat form a group."""
    episode_id: str
    seat: Seat
    ids: Ids
    trainable: Mask
    logprobs: Floats
    """By the engine that sampled them, at the sampling temperature; 0 where not trainable."""
    version: int
    """Oldest weight version that sampled any of its tokens."""
    reward: float | None
    """None: unscored (a failure is never a score)."""
    format_error: bool = False
    turns: Ids | None = None
    """Per id: how-manieth own turn of the seat sampled it; -1 where not trainable. None: one turn."""
    turn_rewards: tuple[float, ...] = ()
    """Reward of each own turn, where the task gives them (`Score.parts["turn/0"]`, …)."""

    @property
    def scored(self) -> bool:
        return self.reward is not None

    @property
    def score(self) -> float:
        """The reward of a scored rollout; asking an unscored one is a bug."""
        if self.reward is None:
            raise ValueError(f"rollout {self.episode_id} has no score")
        return self.reward

    @property
    def prompt_len(self) -> int:
        """Tokens before the first sampled one."""
        return int(self.trainable.argmax())


@dataclass(frozen=True)
class Attempt:
    """A draft and what the algorithm asked for beside it; prefixes are token ids that end where sampling began."""

    draft: Rollout
    teacher_prefix: Ids | None = None
    """The draft's prompt with privileged text (or feedback) in it: the context of the teacher."""
    refined: Rollout | None = None
    """The same row and seat played again under feedback (verbal feedback)."""
    plain_prefix: Ids | None = None
    """The refined rollout's prompt without the feedback in it."""


@dataclass(frozen=True)
class Surrogate:
    """The policy-gradient surrogate (rl/losses.py); the ratio is clipped to [1 - clip_low, 1 + clip_high]."""

    clip_low: float = 0.2
    clip_high: float = 0.28
    dual_clip: float | None = 10.0
    """Bound on ratio x |A| for negative advantages (arXiv:1912.09729); None switches it off."""
    sequence_ratio: bool = False
    """One length-normalised ratio per sequence (GSPO, arXiv:2507.18071) instead of one per token."""
    detached: bool = False
    """The clipped ratio is a constant weight on log p (CISPO, arXiv:2506.13585), so clipped tokens still learn."""


@dataclass(frozen=True)
class TrainSample:
    """One sequence and its weights on the loss components. Arrays are [T]; None means that the component is off."""

    ids: Ids
    trainable: Mask
    episode_id: str
    prompt_id: str
    seat: Seat
    version: int
    context: Context = "plain"
    rollout_logprobs: Floats | None = None
    advantage: Floats | None = None
    surrogate: Surrogate = Surrogate()
    cross_entropy: Floats | None = None
    reverse_kl: Floats | None = None
    """On the sampled tokens, as a policy gradient."""
    top_k_kl: Floats | None = None
    """On the `top_k` likeliest tokens of the student and the rest of the vocabulary as one, differentiated."""
    top_k: int = 0
    top_k_ids: Ids | None = None
    """[T, K], filled by the actor: the student's likeliest tokens before the first update."""
    top_k_teacher: Floats | None = None
    """[T, K], filled by the actor: the teacher's log-probs of them."""
    teacher_prefix: Ids | None = None
    """The teacher sees these ids in place of ids[:prompt_len]."""
    teacher: TeacherWeights = "current"
    """Which of the actor's weights grade it; `external` ones are filled in before the actor sees the sample."""
    teacher_temperature: float = 1.0
    """Of the actor's teacher, relative to the sampling temperature."""
    teacher_logprobs: Floats | None = None
    """Filled by the actor or by an external teacher, before training, where `teacher_prefix` is set."""
    old_logprobs: Floats | None = None
    """By the trainer's weights that sampled the batch; filled by the actor before the first update on it."""

    @property
    def prompt_len(self) -> int:
        return int(self.trainable.argmax())

    @property
    def trained_tokens(self) -> int:
        return int(self.trainable.sum())

    def spread(self, value: float | Floats) -> Floats:
        """`value` (one, or one per token) on the trainable tokens, 0 elsewhere."""
        return np.where(self.trainable, value, 0.0).astype(np.float32)

    def teacher_sequence(self) -> TrainSample:
        """The same sampled tokens (and everything after the prompt) in the teacher's context."""
        if self.teacher_prefix is None:
            raise ValueError("this sample has no teacher context")
        return retarget(self, self.teacher_prefix)

    def with_teacher(self, logprobs: Floats) -> TrainSample:
        """Attach log-probs [T'] of `teacher_sequence()`, aligned back to this sample's tokens."""
        return replace(self, teacher_logprobs=self.spread(self._from_teacher(logprobs)))

    def teacher_candidates(self) -> Ids:
        """`top_k_ids` [T', K] where the teacher must grade them: aligned to `teacher_sequence()`."""
        if self.teacher_prefix is None or self.top_k_ids is None:
            raise ValueError("this sample has no teacher context or no candidates")
        of_prompt = np.zeros((len(self.teacher_prefix), self.top_k_ids.shape[1]), np.int32)
        return np.concatenate([of_prompt, self.top_k_ids[self.prompt_len :]])

    def with_top_k_teacher(self, logprobs: Floats) -> TrainSample:
        """Attach the teacher's log-probs [T', K] of `teacher_candidates()`."""
        return replace(self, top_k_teacher=self._from_teacher(logprobs).astype(np.float32))

    def _from_teacher(self, values: Floats) -> Floats:
        """Values of the teacher's sequence at this sample's tokens; 0 in its prompt."""
        if self.teacher_prefix is None:
            raise ValueError("this sample has no teacher context")
        aligned = np.zeros((len(self.ids), *values.shape[1:]), np.float32)
        aligned[self.prompt_len :] = values[len(self.teacher_prefix) :]
        return aligned


def rollouts_of(episode: Episode, *, prompt_id: str, episode_id: str) -> dict[Seat, Rollout]:
    """The learnable seats of an episode that sampled at least one token."""
    found: dict[Seat, Rollout] = {}
    for seat, trace in sorted(episode.traces.items()):
        outcome = episode.outcomes.get(seat)
        if not trace.learnable or not any(s.trainable and s.ids for s in trace.segments):
            continue
        ids, trainable, logprobs, turns, version = _arrays(trace)
        found[seat] = Rollout(
            prompt_id=prompt_id,
            episode_id=episode_id,
            seat=seat,
            ids=ids,
            trainable=trainable,
            logprobs=logprobs,
            version=version,
            reward=outcome.value if isinstance(outcome, Score) else None,
            format_error=isinstance(outcome, Score) and outcome.format_error,
            turns=turns,
            turn_rewards=_turn_rewards(outcome) if isinstance(outcome, Score) else (),
        )
    return found


def _turn_rewards(score: Score) -> tuple[float, ...]:
    """parts["turn/0"], parts["turn/1"], … as far as they go without a gap."""
    found: list[float] = []
    while (name := f"turn/{len(found)}") in score.parts:
        found.append(score.parts[name])
    return tuple(found)


def _arrays(trace: SeatTrace) -> tuple[Ids, Mask, Floats, Ids, int]:
    ids = np.asarray(trace.ids, np.int32)
    trainable = np.asarray(trace.trainable_mask, np.bool_)
    logprobs = np.zeros(len(ids), np.float32)
    turns = np.full(len(ids), -1, np.int32)
    own = {turn: i for i, turn in enumerate(sorted({s.turn for s in trace.segments if s.trainable}))}
    start, versions = 0, []
    for segment in trace.segments:
        if segment.trainable:
            if segment.logprobs is None or len(segment.logprobs) != len(segment.ids):
                raise ValueError(f"seat {trace.seat}: a sampled segment without one log-prob per token")
            here = slice(start, start + len(segment.ids))
            logprobs[here], turns[here] = segment.logprobs, own[segment.turn]
            versions.append(segment.version or 0)
        start += len(segment.ids)
    end = int(np.flatnonzero(trainable)[-1]) + 1
    return ids[:end], trainable[:end], logprobs[:end], turns[:end], min(versions)


def sample_of(rollout: Rollout, context: Context = "plain") -> TrainSample:
    """A sample with no weights yet, in the context that the engine saw."""
    return TrainSample(
        ids=rollout.ids,
        trainable=rollout.trainable,
        episode_id=rollout.episode_id,
        prompt_id=rollout.prompt_id,
        seat=rollout.seat,
        version=rollout.version,
        context=context,
        rollout_logprobs=rollout.logprobs,
    )


def retarget(sample: TrainSample, prefix: Ids) -> TrainSample:
    """The sampled tokens, and all after the prompt, in another context: `prefix` replaces the prompt. Log-probs and
    weights of the old context do not apply there."""
    start = sample.prompt_len
    return TrainSample(
        ids=np.concatenate([np.asarray(prefix, np.int32), sample.ids[start:]]),
        trainable=np.concatenate([np.zeros(len(prefix), np.bool_), sample.trainable[start:]]),
        episode_id=sample.episode_id,
        prompt_id=sample.prompt_id,
        seat=sample.seat,
        version=sample.version,
    )


def weigh(
    sample: TrainSample,
    *,
    advantage: float | Floats | None = None,
    cross_entropy: float | None = None,
    reverse_kl: float | None = None,
    top_k_kl: float | None = None,
    top_k: int = 0,
    surrogate: Surrogate | None = None,
    teacher_prefix: Ids | None = None,
    teacher: TeacherWeights = "current",
    teacher_temperature: float = 1.0,
) -> TrainSample:
    """Put weights on the trainable tokens of a sample: one number for all of them, or one per token."""

    def spread(value: float | Floats | None) -> Floats | None:
        return None if value is None else sample.spread(value)

    return replace(
        sample,
        surrogate=surrogate or sample.surrogate,
        teacher_prefix=teacher_prefix,
        teacher=teacher,
        teacher_temperature=teacher_temperature,
        advantage=spread(advantage),
        cross_entropy=spread(cross_entropy),
        reverse_kl=spread(reverse_kl),
        top_k_kl=spread(top_k_kl),
        top_k=top_k,
    )
