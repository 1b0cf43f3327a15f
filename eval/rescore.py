"""Score recorded episodes again under another profile, or by another judge. Nothing is generated.

Each episode is played again from what its seats said, through the environment of the new plan. Where that asks a
judge, its own recorded replies answer, or the given judge (one that the model was not trained against: an unseen
judge). A question without an answer is Unscored(judge_failed), never carried over from the old profile. Episodes
whose players had failed stay as they were.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace

from envs.judges.base import Judge
from envs.play import play
from envs.players.base import Player
from envs.players.scripted import ScriptedPlayer
from envs.registry import Profile, TaskSpec
from envs.types import Episode, FailureReason, Seat, Unscored
from eval.aggregate import aggregate
from eval.plan import EvalPlan
from eval.recorded_judge import RecordedJudge
from eval.results import Results

GENERATION_FAILED = (FailureReason.ENGINE_FAILED, FailureReason.PARTNER_FAILED, FailureReason.TIMEOUT)


async def rescore(
    plan: EvalPlan, episodes: Mapping[str, Episode], new: EvalPlan, *, name: str, judge: Judge | None = None
) -> tuple[Results, dict[str, Episode]]:
    """Results of plan `new` from the episodes of `plan`, and the rescored episodes by the keys of `new`.

    The two plans ask the same rows; `new` differs in profile or judge. judge: asked instead of the record.
    """
    recorded = {(e.content, e.epoch): episodes[e.key] for e in plan.episodes if e.key in episodes}
    found = {}
    for task in new.tasks:
        for planned in task.episodes:
            if (old := recorded.get((planned.content, planned.epoch))) is not None:
                found[planned.key] = await rescore_episode(task.spec, old, task.profile, judge)
    return aggregate(new, found, name=name), found


async def rescore_episode(spec: TaskSpec, episode: Episode, profile: Profile, judge: Judge | None = None) -> Episode:
    """The same words under another scorer: outcomes and judge calls are new, everything else is kept."""
    if any(isinstance(o, Unscored) and o.reason in GENERATION_FAILED for o in episode.outcomes.values()):
        return replace(episode, scorer=profile)
    env = spec.env(profile)
    again = await play(
        env,
        episode.row,
        _replaying(episode, env.seats),
        judge=judge or RecordedJudge(episode.judge_calls, spec.judges),
        seed=episode.seed,
        setting_seed=episode.setting_seed,
        limits=replace(spec.limits, max_turns=max(episode.turns, 1)),
        scorer=profile,
    )
    # What the players' own API calls cost stays on record; judge calls are the new ones.
    asked = {judge.role for judge in spec.judges}
    kept = tuple(call for call in episode.judge_calls if call.role not in asked or call.role == "partner")
    return replace(
        episode,
        outcomes=again.outcomes,
        judge_calls=(*kept, *again.judge_calls),
        findings=again.findings,
        scorer=profile,
    )


def _replaying(episode: Episode, seats: tuple[Seat, ...]) -> dict[Seat, Player]:
    lines: dict[Seat, list[str]] = defaultdict(list)
    for say in episode.says:
        lines[say.seat].append(say.text)
    return {seat: ScriptedPlayer(tuple(lines[seat])) for seat in seats}
