"""The rollout side of a step, on rank 0: draw prompts, play episodes, weigh them into training samples.

Playing and weighing are two calls: a step may be played while the one before trains, but is weighed in its turn.

Every finished episode is in the ledger before anything is trained on it, so a resumed run gets it back instead of
playing it again. Episodes that failed are recorded only once the step's failure share has passed its gate: until
then a repaired judge or engine may play them again. Each episode's seed comes from its coordinates; nothing depends
on the order in which episodes end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any, TypeVar

import numpy as np

from common.errors import GateError
from data_tools.renderer import Renderer
from envs.detectors.base import inspect
from envs.engine import Engine, EngineError
from envs.env import Env
from envs.judges.base import Judge
from envs.ledger import Consumed, EpisodeKey, Ledger
from envs.play import episode_seed, play
from envs.players.base import Player
from envs.registry import TaskSpec
from envs.tokens import prompt_with
from envs.types import Episode, Limits, Row, Score, Seat, Stop, Unscored
from rl.algorithms.base import Algorithm, GroupCounts
from rl.config import RLConfig, TaskConfig
from rl.gates import check_failures, check_staleness
from rl.prompts import PromptStream
from rl.samples import Attempt, Rollout, TrainSample, rollouts_of, sample_of

T = TypeVar("T")
STOP_POLL_S = 0.2
PROBES = 4
"""Sequences whose log-probs are compared when a step trains on nothing the engine saw, and after the last sync."""


@dataclass(frozen=True)
class LearnedTask:
    """A task of the mixture, ready to play."""

    config: TaskConfig
    spec: TaskSpec
    env: Env[Any]
    seats: tuple[Seat, ...]
    limits: Limits
    algorithm: Algorithm
    players: Mapping[Seat, Player]
    teacher: Engine | None = None
    """External teacher of on-policy distillation."""


@dataclass(frozen=True)
class Recorded:
    """An episode and its place in the ledger."""

    key: EpisodeKey
    episode: Episode


@dataclass(frozen=True)
class Played:
    """A draft, and its refinement under feedback where there is one."""

    draft: Recorded
    refined: Recorded | None = None

    @property
    def both(self) -> tuple[Recorded, ...]:
        return (self.draft,) if self.refined is None else (self.draft, self.refined)


@dataclass(frozen=True)
class TaskEpisodes:
    """What one task played in a step."""

    task: LearnedTask
    played: tuple[Played, ...]

    @property
    def drafts(self) -> list[Episode]:
        return [p.draft.episode for p in self.played]

    @property
    def refinements(self) -> list[Episode]:
        return [p.refined.episode for p in self.played if p.refined is not None]


@dataclass(frozen=True)
class Experience:
    """One step's data, broadcast to every rank."""

    step: int
    samples: tuple[TrainSample, ...]
    probes: tuple[TrainSample, ...]
    """A few rollouts as the engine saw them, for the log-prob gate."""

    @property
    def batch(self) -> tuple[TrainSample, ...]:
        """The samples, then the probes where no sample has log-probs of the engine to compare."""
        comparable = any(s.rollout_logprobs is not None for s in self.samples)
        return self.samples if comparable else self.samples + self.probes


@dataclass(frozen=True)
class Collected:
    """What rank 0 keeps of a step beside the experience."""

    experience: Experience
    episodes: tuple[TaskEpisodes, ...]
    counts: GroupCounts
    watched: Mapping[str, float | int] = field(default_factory=dict)
    """Metrics of rl/watch."""


class StopRequested(Exception):
    """The run was asked to stop while rollouts were being collected; finished ones are in the ledger."""


class Collector:
    """Plays and weighs. Owns the algorithms' state."""

    def __init__(
        self,
        config: RLConfig,
        tasks: Sequence[LearnedTask],
        prompts: PromptStream,
        renderer: Renderer,
        ledger: Ledger,
        judge: Judge | None = None,
    ) -> None:
        self.config, self.ledger = config, ledger
        self._tasks = {t.config.task: t for t in tasks}
        self._prompts, self._renderer, self._judge = prompts, renderer, judge
        self._slots = asyncio.Semaphore(config.max_concurrent_episodes)
        self.state = self._states()
        """State of every task's algorithm after the last consumed step, for the checkpoint."""

    def restore(self, state: Mapping[str, Mapping[str, float]]) -> None:
        """Take up what `state` gave."""
        for name, values in state.items():
            self._tasks[name].algorithm.state = dict(values)
        self.state = self._states()

    def _states(self) -> dict[str, dict[str, float]]:
        return {name: dict(task.algorithm.state) for name, task in self._tasks.items()}

    async def play(self, step: int, stop: Callable[[], bool] = lambda: False) -> tuple[TaskEpisodes, ...]:
        """All episodes of one step, recorded. Raises GateError (too many failures, deadline) and StopRequested."""
        known = {r.key: r.episode for r in self.ledger.episodes(step=step)}
        jobs = [
            (f"{row.prompt_id}#{key.sample}", self._attempt(task, row, key, known))
            for task, row, key in self._attempts_of(step)
        ]
        played = await _all_or_stop(jobs, stop, self.config.timeout_s, where=f"step {step}: rollouts")
        episodes = tuple(
            TaskEpisodes(task, tuple(p for p in played if p.draft.episode.row.task == task.spec.name))
            for task in self._tasks.values()
        )
        self._check_and_record_failures(episodes, step)
        return episodes

    def _attempts_of(self, step: int) -> Iterator[tuple[LearnedTask, Row, EpisodeKey]]:
        """Every sample of every prompt of a step, in the order of (task, prompt, sample)."""
        drawn = sorted(self._prompts.draw(step), key=_by_prompt)
        for (name, prompt_id), group in groupby(drawn, key=_by_prompt):
            task, rows = self._tasks[name], [row for _, row in group]
            # A prompt drawn twice in one step (at the end of an epoch) makes one larger group.
            for sample, row in enumerate(rows * self.config.samples_of(task.config)):
                yield task, row, EpisodeKey("rollout", step, prompt_id, sample)

    def consume(self, collected: Collected) -> None:
        """Record what the step was trained on."""
        keys = {episode_id(one.key): one.key for t in collected.episodes for p in t.played for one in p.both}
        uses = [
            Consumed(collected.experience.step, keys[s.episode_id], s.seat, s.context, component, value, weights)
            for s in collected.experience.samples
            for component, value, weights in _components(s)
        ]
        self.ledger.put_consumed(uses)
        self.state = self._states()

    async def _attempt(
        self, task: LearnedTask, row: Row, key: EpisodeKey, known: Mapping[EpisodeKey, Episode]
    ) -> Played:
        """A draft and, where the algorithm wants it and there is feedback, its refinement. `known`: of the ledger."""
        wants = task.algorithm.needs == "feedback"
        draft = known.get(key) or await self._play(task, row, key, want_feedback=wants)
        hints = {seat: f.text for seat, f in draft.feedback.items()} if wants else {}
        if not hints:
            return Played(Recorded(key, draft))
        again_key = replace(key, phase="refined")
        again = known.get(again_key) or await self._play(task, row, again_key, hints=hints)
        return Played(Recorded(key, draft), Recorded(again_key, again))

    async def _play(
        self,
        task: LearnedTask,
        row: Row,
        key: EpisodeKey,
        *,
        want_feedback: bool = False,
        hints: Mapping[Seat, str] | None = None,
    ) -> Episode:
        async with self._slots:
            episode = await play(
                task.env,
                row,
                task.players,
                judge=self._judge,
                learnable=task.seats,
                seed=episode_seed(self.config.seed, key.step, row, key.sample, phase=key.phase),
                setting_seed=self.config.seed,
                limits=task.limits,
                feedback_text=hints,
                want_feedback=want_feedback,
                scorer=task.config.profile,
            )
        episode = replace(episode, findings=inspect(episode, task.seats))
        if not _failures(episode):
            self.ledger.put_episode(key, episode)
        return episode

    def _check_and_record_failures(self, episodes: Sequence[TaskEpisodes], step: int) -> None:
        every = [one for t in episodes for p in t.played for one in p.both]
        failed = [one for one in every if _failures(one.episode)]
        reasons = [_failures(one.episode)[0] for one in failed]
        check_failures(reasons, len(every), self.config.gates, where=f"step {step}: rollouts")
        for one in failed:
            self.ledger.put_episode(one.key, one.episode)
        self.ledger.flush()

    async def weigh(self, step: int, episodes: Sequence[TaskEpisodes]) -> Collected:
        """Training samples of a played step. Steps must be weighed in order: algorithms may keep state.

        Raises GateError for a rollout that is staler than `max_staleness`.
        """
        samples: list[TrainSample] = []
        probes: list[TrainSample] = []
        counts = GroupCounts()
        for one in episodes:
            attempts = [a for p in one.played for a in self._attempts(one.task, p)]
            weighed = one.task.algorithm.weigh(attempts)
            counts += weighed.counts
            samples += await self._graded_by_external(one.task, weighed.samples)
            probes += [sample_of(a.draft) for a in attempts]
        check_staleness([step - s.version for s in samples], self.config.max_staleness, where=f"step {step}")
        return Collected(Experience(step, tuple(samples), tuple(probes[:PROBES])), tuple(episodes), counts)

    def _rollouts(self, one: Recorded) -> dict[Seat, Rollout]:
        """Of every learnable seat that sampled something; without a reward where it is screened."""
        found = rollouts_of(one.episode, prompt_id=one.key.prompt_id, episode_id=episode_id(one.key))
        screened = screened_seats(one.episode, self.config.screen)
        return {seat: replace(r, reward=None) if seat in screened else r for seat, r in found.items()}

    def _attempts(self, task: LearnedTask, played: Played) -> list[Attempt]:
        """What the algorithm weighs: each learnable seat's draft, with what it asked for beside it."""
        draft, again = played.draft.episode, played.refined
        refined = self._rollouts(again) if again else {}
        attempts = []
        for seat, rollout in self._rollouts(played.draft).items():
            hint = self._teacher_text(task, draft, seat)
            plain = again.episode.traces[seat].plain_prompt if again and seat in refined else None
            attempts.append(
                Attempt(
                    rollout,
                    teacher_prefix=_ids(prompt_with(self._renderer, draft.first_view(seat), hint)) if hint else None,
                    refined=refined.get(seat),
                    plain_prefix=_ids(plain) if plain is not None else None,
                )
            )
        return attempts

    def _teacher_text(self, task: LearnedTask, draft: Episode, seat: Seat) -> str | None:
        if task.algorithm.needs == "privileged":
            return task.env.privileged(draft.row, seat)
        if task.algorithm.needs == "feedback" and seat in draft.feedback:
            return draft.feedback[seat].text
        return None

    async def _graded_by_external(self, task: LearnedTask, samples: Sequence[TrainSample]) -> list[TrainSample]:
        if task.teacher is None:
            return list(samples)
        teacher = task.teacher

        async def grade(sample: TrainSample) -> TrainSample:
            seen = sample.teacher_sequence()
            async with self._slots:
                tail = await teacher.score(tuple(seen.ids.tolist()), seen.prompt_len)
            return sample.with_teacher(np.array([0.0] * seen.prompt_len + list(tail), np.float32))

        try:
            return list(await asyncio.gather(*(grade(s) for s in samples)))
        except EngineError as e:
            raise GateError(
                f"the external teacher failed: {e}",
                where=f"task {task.config.task}",
                fix="check algorithm.external_model, then run again: no episode is played twice",
            ) from e


def _by_prompt(drawn: tuple[str, Row]) -> tuple[str, str]:
    """(task, prompt)."""
    task, row = drawn
    return task, row.prompt_id


def episode_id(key: EpisodeKey) -> str:
    """A key as text whose order is the order of samples."""
    return f"{key.phase}/{key.step}/{key.prompt_id}/{key.sample:05d}"


def screened_seats(episode: Episode, detectors: Collection[str]) -> set[Seat]:
    """Seats whose rollout leaves its group, because one of `detectors` found something."""
    return {f.seat for f in episode.findings if f.detector in detectors}


def _ids(ids: Sequence[int]) -> np.ndarray:
    return np.asarray(ids, np.int32)


def _failures(episode: Episode) -> list[Unscored]:
    """What somebody must repair: not a seat that goes without a score because a learnable seat broke the format."""
    own_fault = any(
        isinstance(o, Score) and o.format_error and seat in episode.traces and episode.traces[seat].learnable
        for seat, o in episode.outcomes.items()
    )
    if own_fault and episode.stop is Stop.FORMAT_ERROR:
        return []
    return [o for o in episode.outcomes.values() if isinstance(o, Unscored)]


def _components(sample: TrainSample) -> list[tuple[str, float, tuple[float, ...] | None]]:
    """Loss components of a sample: name, mean weight of its trained tokens, and all weights where they differ."""
    named = (
        ("policy_gradient", sample.advantage),
        ("cross_entropy", sample.cross_entropy),
        ("reverse_kl", sample.reverse_kl),
        ("top_k_kl", sample.top_k_kl),
    )
    found = []
    for name, weights in named:
        if weights is not None:
            trained = weights[sample.trainable]
            alike = bool((trained == trained[0]).all())
            value = float(trained[0]) if alike else float(trained.astype(np.float64).mean())
            found.append((name, value, None if alike else tuple(trained.tolist())))
    return found


async def _all_or_stop(
    jobs: Sequence[tuple[str, Coroutine[Any, Any, T]]], stop: Callable[[], bool], timeout_s: float, *, where: str
) -> list[T]:
    """Results of named jobs, in order. The first error, a stop request or the deadline cancels what still runs."""
    tasks = [asyncio.create_task(job, name=name) for name, job in jobs]
    deadline = asyncio.get_running_loop().time() + timeout_s
    try:
        pending = set(tasks)
        while pending:
            done, pending = await asyncio.wait(pending, timeout=STOP_POLL_S, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                task.result()
            if pending and stop():
                raise StopRequested
            if pending and asyncio.get_running_loop().time() > deadline:
                late = ", ".join(sorted(task.get_name() for task in pending)[:3])
                raise GateError(
                    f"{len(pending)} of {len(tasks)} attempts did not end within {timeout_s:g} s: {late}…",
                    where=where,
                    fix="look at the engine and the judge, or raise timeout_s, then run again: what ended is kept",
                )
        return [task.result() for task in tasks]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
