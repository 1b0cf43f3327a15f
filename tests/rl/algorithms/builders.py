"""Small rollouts and attempts for tests."""

from __future__ import annotations

import numpy as np

from rl.samples import Attempt, Rollout


def rollout(
    prompt: str,
    episode: str,
    reward: float | None,
    *,
    seat: str = "reader",
    prompt_len: int = 3,
    sampled: int = 4,
    turn_rewards: tuple[float, ...] = (),
) -> Rollout:
    """A rollout whose ids tell its episode, so that mix-ups show; its first two sampled ids are its first turn."""
    n = prompt_len + sampled
    mark = sum(map(ord, episode)) % 50
    return Rollout(
        prompt_id=prompt,
        episode_id=episode,
        seat=seat,
        ids=np.arange(mark, mark + n, dtype=np.int32),
        trainable=np.arange(n) >= prompt_len,
        logprobs=np.where(np.arange(n) >= prompt_len, -0.5, 0.0).astype(np.float32),
        version=0,
        reward=reward,
        turns=np.where(np.arange(n) < prompt_len, -1, np.arange(n) >= prompt_len + 2).astype(np.int32),
        turn_rewards=turn_rewards,
    )


def drafts(rewards_by_prompt: dict[str, list[float | None]], *, seat: str = "reader") -> list[Attempt]:
    """One draft per reward."""
    return [
        Attempt(rollout(prompt, f"{prompt}#{i}", reward, seat=seat))
        for prompt, rewards in rewards_by_prompt.items()
        for i, reward in enumerate(rewards)
    ]


def refined(prompt: str, index: int, draft: float | None, again: float | None, *, hint_len: int = 2) -> Attempt:
    """A draft and its refinement, whose prompt is `hint_len` tokens longer than the plain one."""
    first = rollout(prompt, f"{prompt}#{index}", draft)
    second = rollout(prompt, f"{prompt}#{index}+", again, prompt_len=first.prompt_len + hint_len, sampled=5)
    return Attempt(
        first,
        teacher_prefix=np.array([90, 91, 92, 93, 94], np.int32),
        refined=second,
        plain_prefix=first.ids[: first.prompt_len],
    )
