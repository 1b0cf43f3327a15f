"""Score recorded episodes again under another profile or judge. Nothing is generated.

Each episode is played again from what its seats said, through the environment of the new profile. Where the profile
asks a judge, the given judge answers (from its cache in replay mode); without one those episodes are
Unscored(judge_failed), never carried over from the old profile. Episodes whose players had failed stay as they were.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace

from envs.judges.base import Judge
from envs.play import play
from envs.players.base import Player
from envs.players.scripted import ScriptedPlayer
from envs.registry import Profile, TaskSpec, profile_of
from envs.types import Episode, FailureReason, Seat, Unscored
from eval.aggregate import aggregate
from eval.plan import EvalPlan
from eval.results import Results

GENERATION_FAILED = (FailureReason.ENGINE_FAILED, FailureReason.PARTNER_FAILED, FailureReason.TIMEOUT)


async def rescore(
    plan: EvalPlan,
    episodes: Mapping[str, Episode],
    profile: str,
    *,
    name: str,
    judge: Judge | None = None,
) -> tuple[Results, dict[str, Episode]]:
    """Results under `profile`, and the rescored episodes by key. Raises UsageError when a task lacks the profile."""
    tasks, found = [], {}
    for task in plan.tasks:
        chosen = profile_of(task.spec, profile)
        tasks.append(replace(task, profile=chosen))
        for planned in task.episodes:
            if planned.key in episodes:
                found[planned.key] = await rescore_episode(task.spec, episodes[planned.key], chosen, judge)
    changed = plan.config.model_copy(update={"profile": profile})
    new_plan = replace(plan, config=changed, tasks=tuple(tasks))
    return aggregate(new_plan, found, name=name), found


async def rescore_episode(spec: TaskSpec, episode: Episode, profile: Profile, judge: Judge | None) -> Episode:
    """The same words under another scorer: outcomes and judge calls are new, everything else is kept."""
    if any(isinstance(o, Unscored) and o.reason in GENERATION_FAILED for o in episode.outcomes.values()):
        return replace(episode, scorer=profile)
    env = spec.env(profile)
    again = await play(
        env,
        episode.row,
        _replaying(episode, env.seats),
        judge=judge,
        seed=episode.seed,
        setting_seed=episode.setting_seed,
        limits=replace(spec.limits, max_turns=max(episode.turns, 1)),
        scorer=profile,
    )
    return replace(
        episode, outcomes=again.outcomes, judge_calls=again.judge_calls, findings=again.findings, scorer=profile
    )


def _replaying(episode: Episode, seats: tuple[Seat, ...]) -> dict[Seat, Player]:
    lines: dict[Seat, list[str]] = defaultdict(list)
    for say in episode.says:
        lines[say.seat].append(say.text)
    return {seat: ScriptedPlayer(tuple(lines[seat])) for seat in seats}
