"""Is the judge still the judge? Anchors scored again, and a second opinion on a sample. Runs on rank 0.

A judge that fails leaves "failed" counts, never an agreement: with too few verdicts there is an alarm of its own.
Calls go to the ledger, so they are part of the run's cost.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence

from common.errors import UsageError
from common.seeds import derive_rng
from envs.judges.base import Judge
from envs.ledger import Ledger, LedgerReader
from envs.registry import TaskSpec
from envs.types import Episode, Score
from eval.rescore import rescore_episode
from rl.watch.alarm import Alarm
from rl.watch.config import AnchorConfig, SecondJudgeConfig

Metrics = dict[str, float | int]
CONCURRENT = 16


class Rejudge:
    """Scores played episodes again with `judge`, in their own task and profile."""

    def __init__(self, tasks: Mapping[str, TaskSpec], judge: Judge, ledger: Ledger) -> None:
        self._tasks, self._judge, self._ledger = tasks, judge, ledger

    def knows(self, episode: Episode) -> bool:
        """Whether its task is one of this run's, and a judge scored it, every seat of it: an episode that a failure
        cut short would come back from `rescore_episode` as it was, which is no second opinion."""
        whole = all(isinstance(outcome, Score) for outcome in episode.outcomes.values())
        return episode.row.task in self._tasks and bool(episode.judge_calls) and whole

    async def scores(self, episodes: Sequence[Episode]) -> list[tuple[float, float | None]]:
        """(score then, score now or None) of every seat that had one."""
        slots = asyncio.Semaphore(CONCURRENT)

        async def one(episode: Episode) -> list[tuple[float, float | None]]:
            async with slots:
                profile = episode.scorer
                again = await rescore_episode(self._tasks[episode.row.task], episode, profile, self._judge)  # type: ignore[arg-type]
            for call in again.judge_calls:
                if call not in episode.judge_calls:
                    self._ledger.put_call(call)
            found = []
            for seat, before in episode.outcomes.items():
                now = again.outcomes.get(seat)
                if isinstance(before, Score):
                    found.append((before.value, now.value if isinstance(now, Score) else None))
            return found

        return [pair for pairs in await asyncio.gather(*(one(e) for e in episodes)) for pair in pairs]


class Anchors:
    """The fixed set of one run."""

    def __init__(self, config: AnchorConfig, rejudge: Rejudge) -> None:
        self.config, self._rejudge = config, rejudge
        with LedgerReader(config.run / "ledger") as reader:
            usable = (r.episode for r in reader.episodes() if rejudge.knows(r.episode))
            self.episodes = [e for _, e in zip(range(config.count), usable, strict=False)]
        if not self.episodes:
            raise UsageError(
                "no judged episodes of this run's tasks", where=str(config.run), fix="give a run that has some"
            )

    async def observe(self, step: int) -> tuple[Metrics, list[Alarm]]:
        if step % self.config.every_steps:
            return {}, []
        pairs = await self._rejudge.scores(self.episodes)
        both = [(then, now) for then, now in pairs if now is not None]
        metrics: Metrics = {"judge/anchor_n": len(both), "judge/anchor_failed": len(pairs) - len(both)}
        if len(both) * 2 < len(pairs):
            return metrics, [Alarm(f"{len(both)} of {len(pairs)} anchors got a verdict", self.config.action)]
        shift = math.fsum(now - then for then, now in both) / len(both)
        metrics["judge/anchor_shift"] = shift
        metrics["judge/anchor_abs_change"] = math.fsum(abs(now - then) for then, now in both) / len(both)
        if abs(shift) <= self.config.max_shift:
            return metrics, []
        return metrics, [Alarm(f"the judge's mean on the anchors moved by {shift:+.3f}", self.config.action)]


class SecondJudge:
    """Another judge's opinion on a share of each step's episodes, drawn by (seed, step)."""

    def __init__(self, config: SecondJudgeConfig, rejudge: Rejudge, seed: int) -> None:
        self.config, self._rejudge, self._seed = config, rejudge, seed

    async def observe(self, step: int, episodes: Sequence[Episode]) -> tuple[Metrics, list[Alarm]]:
        judged = [e for e in episodes if self._rejudge.knows(e)]
        if not judged:
            return {}, []
        count = min(len(judged), math.ceil(self.config.share * len(judged)))
        sample = derive_rng(self._seed, "second_judge", step).sample(judged, count)
        pairs = await self._rejudge.scores(sample)
        both = [(first, second) for first, second in pairs if second is not None]
        metrics: Metrics = {"judge/second_n": len(both), "judge/second_failed": len(pairs) - len(both)}
        if not both:
            return metrics, [Alarm("the second judge gave no verdict", self.config.action)]
        gap = math.fsum(first - second for first, second in both) / len(both)
        metrics["judge/second_gap"] = gap
        metrics["judge/second_abs_difference"] = math.fsum(abs(a - b) for a, b in both) / len(both)
        if gap <= self.config.max_gap:
            return metrics, []
        return metrics, [Alarm(f"the judge scores {gap:.3f} higher than the second judge", self.config.action)]
