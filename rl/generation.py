"""Rank 0's side of a run behind a few synchronous calls: engine, external teachers, ledger, collector.

Owns one event loop for the whole run, so that connections outlive a step. Engine failures that concern the whole run
(an update that did not arrive) are GateErrors; those of single episodes are outcomes. `close` ends what was started.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
from torch import Tensor

from common.errors import GateError
from common.run_folder import RunFolder
from data_tools.renderer import Renderer
from envs import registry
from envs.client.client import Client
from envs.engine import EngineError, Sampling
from envs.judges.model import ModelJudge
from envs.ledger import Ledger
from envs.players.base import Player
from envs.players.chat import ChatPlayer
from envs.players.engine import EnginePlayer
from envs.registry import TaskSpec
from envs.types import Row, Seat
from rl.algorithms import OPDConfig, build_algorithm
from rl.collect import Collected, Collector, LearnedTask, StopRequested
from rl.config import RLConfig, TaskConfig
from rl.prompts import PromptStream, Source
from rl.rollout.base import RolloutEngine
from rl.rollout.config import RolloutConfig
from rl.rollout.select import open_rollout
from rl.samples import Floats, TrainSample
from rl.weight_sync.sync import SyncReport, WeightSync

T = TypeVar("T")


class Generation:
    """See the module's docstring. Built on rank 0 only."""

    def __init__(self, config: RLConfig, run: RunFolder) -> None:
        self.config, self.run = config, run
        self._runner = asyncio.Runner()
        self._open: list[RolloutEngine] = []
        self._weights: WeightSync | None = None
        self._client: Client | None = None
        self.ledger = Ledger(run.ledger)
        try:
            context = config.sampling.max_context_tokens
            rollout = config.rollout.model_copy(update={"max_context": max(config.rollout.max_context, context)})
            self.engine: RolloutEngine = self._started(open_rollout(config.model, rollout, run.path))
            self._weights = WeightSync(self.engine, config.model, run.path, config.weight_sync)
            self._renderer = Renderer.load(config.model)
            if config.client is not None:
                spent = sum(cost.cost_usd for cost in self.ledger.costs())
                self._client = Client(config.client, spent_usd=spent)
            tasks = [self._learned(t) for t in config.tasks]
            sources = [Source(t.config.task, t.config.weight, _rows(t)) for t in tasks]
            prompts = PromptStream(sources, groups_per_step=config.groups_per_step, seed=config.seed)
            judge = ModelJudge(self._client, [j for t in tasks for j in t.spec.judges]) if self._client else None
            self.collector = Collector(config, tasks, prompts, self._renderer, self.ledger, judge)
        except BaseException:
            self.close()
            raise

    def collect(self, step: int, stop: Callable[[], bool]) -> Collected | None:
        """One step's episodes and samples; None when a stop was asked for meanwhile."""
        try:
            return self._run(self.collector.collect(step, stop))
        except StopRequested:
            return None

    def sync(self, tensors: Iterable[tuple[str, Tensor]], version: int) -> SyncReport:
        """Give the engine these weights and prove that it holds them."""
        assert self._weights is not None
        return self._run(self._weights.push(tensors, version))

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
            ends.callback(self._runner.close)
            if self._weights is not None:
                ends.callback(self._weights.close)
            if self._client is not None:
                ends.callback(self._finish, self._client)
            for engine in self._open:
                ends.callback(self._finish, engine)

    def _finish(self, opened: RolloutEngine | Client) -> None:
        self._runner.run(opened.close())

    def _learned(self, task: TaskConfig) -> LearnedTask:
        spec = registry.get(task.task)
        profile = registry.profile_of(spec, task.profile)
        teacher = None
        if isinstance(task.algorithm, OPDConfig) and task.algorithm.external_model is not None:
            where = self.run.path / "teachers" / task.task
            embedded = RolloutConfig(kind="embedded", max_context=self.config.sampling.max_context_tokens)
            teacher = self._started(open_rollout(task.algorithm.external_model, embedded, where))
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
            teacher=teacher,
        )

    def _player(self, seat: Seat, spec: TaskSpec) -> Player:
        """The policy; for partner seats the partner endpoint, where there is one."""
        if seat not in spec.seats and self._client is not None and self._client.config.partner is not None:
            return ChatPlayer(self._client)
        s = self.config.sampling
        return EnginePlayer(self.engine, self._renderer, Sampling(s.max_tokens, s.temperature, s.top_p, s.top_k))

    def _started(self, opening: Coroutine[Any, Any, RolloutEngine]) -> RolloutEngine:
        engine = self._run(opening)
        self._open.append(engine)
        return engine

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            return self._runner.run(work)
        except EngineError as e:
            raise GateError(
                f"the rollout engine failed: {e}",
                where="rank 0",
                fix="see its log in the run folder; run again to resume",
            ) from e


def _rows(task: LearnedTask) -> tuple[Row, ...]:
    """The rows of the task's split that its `where` keeps."""
    c = task.config
    return tuple(r for r in task.spec.rows(c.split, c.rows, c.rows_seed) if _matches(r.data, c.where))


def _matches(data: Mapping[str, Any], where: Mapping[str, Any]) -> bool:
    return all(data.get(key) == value for key, value in where.items())
