"""Rank 0's side of a run behind a few synchronous calls: engine, external teachers, ledger, collector.

Owns one event loop for the whole run, in a thread of its own: connections outlive a step, and rollouts of the next
step may be played while this one is trained on (`play_ahead`). Engine failures that concern the whole run
(an update that did not arrive) are GateErrors; those of single episodes are outcomes. `close` ends what was started.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any, TypeVar, get_args

import numpy as np
import torch
from torch import Tensor

from common.errors import GateError
from common.run_folder import RunFolder
from data_tools.renderer import Renderer
from envs import registry
from envs.client.client import Client
from envs.client.config import ClientConfig, RoleName
from envs.engine import Engine, EngineError, Sampling
from envs.judges.model import ModelJudge
from envs.judges.spec import JudgeSpec
from envs.ledger import Ledger
from envs.players.base import Player
from envs.players.chat import ChatPlayer
from envs.players.engine import EnginePlayer
from envs.registry import TaskSpec
from envs.types import Row, Seat
from rl.algorithms import OPDConfig, build_algorithm
from rl.collect import Collected, Collector, LearnedTask, StopRequested, TaskEpisodes
from rl.config import RLConfig, TaskConfig
from rl.event_loop import EventLoopThread
from rl.metrics import Rank0
from rl.prompts import PromptStream, Source
from rl.rollout.base import RolloutEngine
from rl.rollout.config import RolloutConfig
from rl.rollout.meter import MeteredEngine
from rl.rollout.pool import EnginePool
from rl.rollout.select import open_rollout
from rl.samples import Floats, TrainSample
from rl.watch.watch import Watch
from rl.weight_sync.sync import SyncReport, WeightSync

T = TypeVar("T")


class Generation:
    """See the module's docstring. Built on rank 0 only."""

    def __init__(self, config: RLConfig, run: RunFolder, device: torch.device) -> None:
        self.config, self.run = config, run
        self._loop = EventLoopThread("rollouts")
        self._playing: dict[int, Future[tuple[TaskEpisodes, ...]]] = {}
        """Steps whose rollouts are being played, or have been and wait."""
        self._play_s: dict[int, float] = {}
        self._synced: SyncReport | None = None
        self._open: list[RolloutEngine] = []
        self._teachers: dict[tuple[str, ...], Engine] = {}
        self._weights: WeightSync | None = None
        self._clients: list[Client] = []
        self._opened = time.monotonic()
        self._earlier_s = sum(line.get("seconds/step", 0.0) for line in run.read_metrics("rl"))
        self.ledger = Ledger(run.ledger)
        try:
            self._loop.run(_use_device(device))
            context = config.sampling.max_context_tokens
            rollout = config.rollout.model_copy(update={"max_context": max(config.rollout.max_context, context)})
            self.engine: RolloutEngine = self._started(open_rollout(config.model, rollout, run.path))
            self._metered = MeteredEngine(self.engine)
            self._weights = WeightSync(
                self.engine, config.model, run.path, config.weight_sync, other_machines=bool(rollout.urls)
            )
            self._renderer = Renderer.load(config.model, live=True)
            self._client = self._opened_client(config.client) if config.client is not None else None
            tasks = [self._learned(t) for t in config.tasks]
            sources = [Source(t.config.task, t.config.weight, _rows(t)) for t in tasks]
            prompts = PromptStream(sources, groups_per_step=config.groups_per_step, seed=config.seed)
            judge = ModelJudge(self._client, _judge_specs(tasks)) if self._client else None
            self._watch = self._watching(tasks, judge)
            self.collector = Collector(config, tasks, prompts, self._renderer, self.ledger, judge)
        except BaseException:
            self.close()
            raise

    def collect(self, step: int, stop: Callable[[], bool]) -> Collected | None:
        """One step's episodes and samples; None when a stop was asked for meanwhile.

        A step that is played ahead is waited for, stop or not: its rollouts come from the weights before these, so an
        exact resume needs all of them in the ledger.
        """
        self._check_hours()
        playing = self._playing.pop(step, None) or self._loop.submit(self._play(step, stop))
        try:
            with _engine_failures():
                episodes = playing.result()
        except StopRequested:
            return None
        return self._run(self._weighed(step, episodes))

    async def _weighed(self, step: int, episodes: Sequence[TaskEpisodes]) -> Collected:
        """Watched, then weighed. Judges and external teachers have one deadline together: other ranks wait for it."""
        played = [(draft, t.task.seats) for t in episodes for draft in t.drafts]
        try:
            async with asyncio.timeout(self.config.timeout_s):
                watched = await self._watch.observe(step, played)
                return replace(await self.collector.weigh(step, episodes), watched=watched)
        except TimeoutError:
            raise GateError(
                f"judges of `watch` and external teachers did not end within {self.config.timeout_s:g} s",
                where=f"step {step}",
                fix="look at their endpoints, or raise timeout_s, then run again: no episode is played twice",
            ) from None

    def _check_hours(self) -> None:
        """Raise GateError when the run's steps have taken their time."""
        bound = self.config.watch.max_hours
        hours = (self._earlier_s + time.monotonic() - self._opened) / 3600
        if bound is not None and hours > bound:
            raise GateError(
                f"the run has taken {hours:.2f} h, watch.max_hours is {bound:g}",
                where="budget",
                fix="raise it and run again: the run goes on from here",
            )

    def play_ahead(self, step: int) -> None:
        """Start playing this step under the engine's present weights, and return."""
        self._playing[step] = self._loop.submit(self._play(step, lambda: False))

    async def _play(self, step: int, stop: Callable[[], bool]) -> tuple[TaskEpisodes, ...]:
        started = time.monotonic()
        try:
            return await self.collector.play(step, stop)
        finally:
            self._play_s[step] = time.monotonic() - started

    def settle(self) -> None:
        """Wait until nothing is being played. What failed is raised by the `collect` that wants it."""
        wait(self._playing.values())

    def sync(self, tensors: Iterable[tuple[str, Tensor]], version: int) -> SyncReport:
        """Give the engine these weights and prove that it holds them."""
        assert self._weights is not None
        self._synced = self._run(self._weights.push(tensors, version))
        return self._synced

    def report(self, step: int) -> Rank0:
        """What this step's metrics say about engines and weight sync; asked once per step."""
        replaced = self.engine.replacements if isinstance(self.engine, EnginePool) else 0
        return Rank0(self._play_s.pop(step, 0.0), self._synced, replaced, self._metered.take().hit_rate)

    def score(self, probes: Sequence[TrainSample]) -> list[TrainSample]:
        """Probes with the engine's log-probs under its present weights (temperature 1)."""

        async def one(probe: TrainSample) -> TrainSample:
            tail = await self.engine.score(tuple(probe.ids.tolist()), probe.prompt_len)
            padded: Floats = np.array([0.0] * probe.prompt_len + list(tail), np.float32)
            return replace(probe, rollout_logprobs=padded)

        async def every() -> list[TrainSample]:
            return [await one(p) for p in probes]

        return self._run(every())

    def close(self) -> None:
        """Stop engines and teachers, close the ledger. Safe after a failure half-way."""
        with ExitStack() as ends:  # last in, first out; one that fails keeps none of the others from ending
            ends.callback(self.ledger.close)
            ends.callback(self._loop.close)
            if self._weights is not None:
                ends.callback(self._weights.close)
            for client in self._clients:
                ends.callback(self._finish, client)
            for engine in self._open:
                ends.callback(self._finish, engine)
            ends.callback(self._cancel_play)  # first of all

    def _cancel_play(self) -> None:
        for playing in self._playing.values():
            playing.cancel()
        wait(self._playing.values())

    def _finish(self, opened: RolloutEngine | Client) -> None:
        self._loop.run(opened.close())

    def _opened_client(self, config: ClientConfig) -> Client:
        """Its budget goes on where earlier processes of this run left it: what calls to its models have cost."""
        models = {endpoint.model for role in get_args(RoleName) if (endpoint := getattr(config, role))}
        spent = math.fsum(cost.cost_usd for cost in self.ledger.costs() if cost.model in models)
        self._clients.append(Client(config, spent_usd=spent, on_abandoned=self.ledger.put_call))
        return self._clients[-1]

    def _watching(self, tasks: Sequence[LearnedTask], judge: ModelJudge | None) -> Watch:
        specs = {t.spec.name: t.spec for t in tasks}
        second = None
        if (asked := self.config.watch.second_judge) is not None:
            second = ModelJudge(self._opened_client(asked.client), _judge_specs(tasks))
        return Watch(self.config.watch, specs, self.ledger, judge=judge, second=second, seed=self.config.seed)

    def _learned(self, task: TaskConfig) -> LearnedTask:
        spec = task.resolve()
        profile = registry.profile_of(spec, task.profile)
        env = spec.env(profile)
        return LearnedTask(
            config=task,
            spec=spec,
            env=env,
            players={seat: self._player(seat, spec) for seat in env.seats},
            seats=task.seats or spec.seats,
            limits=replace(
                spec.limits,
                max_tokens=min(spec.limits.max_tokens, self.config.sampling.max_tokens),
                max_context_tokens=min(spec.limits.max_context_tokens, self.config.sampling.max_context_tokens),
            ),
            algorithm=build_algorithm(task.algorithm),
            teacher=self._teacher(task.algorithm) if isinstance(task.algorithm, OPDConfig) else None,
        )

    def _teacher(self, config: OPDConfig) -> Engine | None:
        """The external teacher of a task; tasks that name the same one share it."""
        if config.external_model is None:
            return None
        key = config.external_urls or (str(config.external_model.resolve()),)
        if key not in self._teachers:
            rollout = RolloutConfig(
                kind="sglang" if config.external_urls else "embedded",
                urls=config.external_urls,
                api_key_variable=config.external_api_key_variable,
                max_context=self.config.sampling.max_context_tokens,
                generate_timeout_s=self.config.rollout.generate_timeout_s,
            )
            where = self.run.path / "teachers" / f"{len(self._teachers)}"
            self._teachers[key] = self._started(open_rollout(config.external_model, rollout, where))
        return self._teachers[key]

    def _player(self, seat: Seat, spec: TaskSpec) -> Player:
        """The policy; for partner seats the partner endpoint, where there is one."""
        if seat not in spec.seats and self._client is not None and self._client.config.partner is not None:
            return ChatPlayer(self._client)
        s = self.config.sampling
        return EnginePlayer(self._metered, self._renderer, Sampling(s.max_tokens, s.temperature, s.top_p, s.top_k))

    def _started(self, opening: Coroutine[Any, Any, RolloutEngine]) -> RolloutEngine:
        engine = self._run(opening)
        self._open.append(engine)
        return engine

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        with _engine_failures():
            return self._loop.run(work)


@contextmanager
def _engine_failures() -> Iterator[None]:
    try:
        yield
    except EngineError as e:
        raise GateError(
            f"the rollout engine failed: {e}",
            where="rank 0",
            fix="see its log in the run folder; run again to resume",
        ) from e


async def _use_device(device: torch.device) -> None:
    """In the thread that runs it: the current CUDA device belongs to a thread."""
    if device.type == "cuda":
        torch.cuda.set_device(device)


def _judge_specs(tasks: Sequence[LearnedTask]) -> list[JudgeSpec]:
    return [judge for task in tasks for judge in task.spec.judges_under(task.config.profile)]


def _rows(task: LearnedTask) -> tuple[Row, ...]:
    """The rows of the task's split that its `where` keeps."""
    c = task.config
    return tuple(r for r in task.spec.rows(c.split, c.rows, c.rows_seed) if _matches(r.data, c.where))


def _matches(data: Mapping[str, Any], where: Mapping[str, Any]) -> bool:
    return all(data.get(key) == value for key, value in where.items())
