"""`run`: play what a plan asks and the store does not have, then aggregate. Async; engines and players are passed in.

Runs in the process of `osim eval run` (or on rank 0 of a training run). Each finished episode goes to the store at
once, so that a killed evaluation repeats only what was in flight. Episodes without a score are played again when the
same command runs again. A failure of an engine, partner or judge is counted and never a score; below `min_coverage`
the run ends with LowCoverage (exit 3), which carries the results.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from common.errors import Interrupted, OsimError, UsageError
from envs.judges.base import Judge
from envs.play import play
from envs.players.base import Player
from envs.registry import TaskSpec
from envs.types import Episode, FailureReason, Row, Score, Seat, Unscored
from eval.aggregate import aggregate, outcome_of
from eval.config import EvalConfig
from eval.limiter import Limiter
from eval.plan import EvalPlan, PlannedEpisode, PlannedTask, make_plan
from eval.results import Results
from eval.retry import RetriedJudge, RetriedPlayer
from eval.stats import Clustered, JointBootstrap

STRAIN = (FailureReason.ENGINE_FAILED, FailureReason.PARTNER_FAILED, FailureReason.TIMEOUT)

REPORT_EVERY_S = 0.5


class Store(Protocol):
    """Where episodes are kept: the run folder's ledger (eval/store.py)."""

    def load(self, plan: EvalPlan) -> Mapping[str, Episode]:
        """Episodes of the plan that are there, by key; the newest play of each."""
        ...

    def put(self, planned: PlannedEpisode, episode: Episode) -> None:
        """Keep an episode; may return before it is durable."""
        ...

    def attempts(self, planned: PlannedEpisode) -> int:
        """How many plays of it there are."""
        ...

    def flush(self) -> None:
        """Return when everything that was put is durable."""
        ...


@dataclass(frozen=True)
class Contestants:
    """Who sits where. `policy` takes every policy seat of a task, `partner` every other one."""

    model: str
    """Identity of the policy, part of every key: weights hash or endpoint and model name."""
    policy: Player
    partner: Player | None = None
    judge: Judge | None = None
    opponents: Mapping[str, str] = field(default_factory=dict)
    """Identity of partner and judge by role, part of the keys of the tasks that use them."""

    def table(
        self, spec: TaskSpec, seats: Sequence[Seat], attempt: int = 0
    ) -> tuple[dict[Seat, Player], Judge | None]:
        """Who sits where, and who judges, at try number `attempt` (eval/retry.py)."""
        players, judge = self.players(spec, seats), self.judge
        if attempt:
            players = {s: p if s in spec.seats else RetriedPlayer(p, attempt) for s, p in players.items()}
            judge = RetriedJudge(judge, attempt) if judge is not None else None
        return players, judge

    def players(self, spec: TaskSpec, seats: Sequence[Seat]) -> dict[Seat, Player]:
        others = [seat for seat in seats if seat not in spec.seats]
        if others and self.partner is None:
            raise UsageError(
                f"seat {', '.join(others)} needs a partner",
                where=f"task {spec.name}",
                fix="configure a partner model",
            )
        return {seat: self.policy if seat in spec.seats or self.partner is None else self.partner for seat in seats}


@dataclass(frozen=True)
class Progress:
    """State of one task during a run."""

    task: str
    done: int
    planned: int
    mean: float | None
    half_width: float | None
    """Of the running mean's interval."""
    unscored: int
    in_flight_limit: int
    eta_s: float | None
    """Until the whole evaluation is done."""
    cost_usd: float

    @property
    def coverage(self) -> float | None:
        """Share of the ended episodes that have a score; None before the first."""
        ended = self.done + self.unscored
        return self.done / ended if ended else None

    def line(self) -> str:
        mean = f"{self.mean:.3f} ± {self.half_width:.3f}" if self.mean is not None else "no score yet"
        eta = f", {self.eta_s:.0f} s left" if self.eta_s is not None else ""
        cost = f", ${self.cost_usd:.2f}" if self.cost_usd else ""
        share = f" ({self.coverage:.1%} of those ended)" if self.coverage is not None and self.coverage < 1 else ""
        return f"{self.task}: {self.done}/{self.planned} scored{share}, {mean}, {self.unscored} unscored{cost}{eta}"


async def run(
    config: EvalConfig,
    contestants: Contestants,
    store: Store,
    *,
    name: str = "",
    rows: Mapping[str, Sequence[Row]] | None = None,
    training_rows: Mapping[str, Sequence[Row]] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    provenance: Mapping[str, str] | None = None,
) -> Results:
    """Evaluate and return results with coverage and intervals.

    rows, training_rows: see `make_plan`. should_stop is asked between episodes; when it says yes, what is in flight
    is finished and Interrupted (exit 4) raised. Raises LowCoverage, with the results, below `config.min_coverage`.
    """
    plan = make_plan(
        config, contestants.model, opponents=contestants.opponents, rows=rows, training_rows=training_rows
    )
    return await run_plan(
        plan,
        contestants,
        store,
        name=name,
        on_progress=on_progress,
        should_stop=should_stop,
        provenance=provenance,
    )


async def run_plan(
    plan: EvalPlan,
    contestants: Contestants,
    store: Store,
    *,
    name: str = "",
    on_progress: Callable[[Progress], None] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    provenance: Mapping[str, str] | None = None,
) -> Results:
    """`run` for a plan that is made already."""
    started = time.monotonic()
    episodes = await play_plan(plan, contestants, store, on_progress=on_progress, should_stop=should_stop)
    results = aggregate(
        plan, episodes, name=name or contestants.model, wall_s=time.monotonic() - started, provenance=provenance
    )
    results.require_coverage(plan.config.min_coverage)
    return results


async def play_plan(
    plan: EvalPlan,
    contestants: Contestants,
    store: Store,
    *,
    on_progress: Callable[[Progress], None] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> dict[str, Episode]:
    """Play what has no score in the store yet; all episodes of the plan by key, stored and new."""
    episodes = dict(store.load(plan))
    runner = _Runner(plan, contestants, store, episodes, on_progress, should_stop)
    await runner.play_all()
    if runner.stopped:
        left = sum(not runner.has_score(task, e) for task in plan.tasks for e in task.episodes)
        raise Interrupted(f"evaluation stopped with {left} episodes to go", fix="the same command goes on from here")
    return episodes


class _Runner:
    def __init__(
        self,
        plan: EvalPlan,
        contestants: Contestants,
        store: Store,
        episodes: dict[str, Episode],
        on_progress: Callable[[Progress], None] | None,
        should_stop: Callable[[], bool],
    ) -> None:
        self.plan, self.contestants, self.store, self.episodes = plan, contestants, store, episodes
        self.on_progress, self.should_stop = on_progress, should_stop
        self.limiter = Limiter(plan.config.concurrency)
        self.stopped = False
        self.started = time.monotonic()
        self.fresh = 0
        self.reported: dict[str, float] = {}
        self.todo = [(t, e) for t in plan.tasks for e in t.episodes if not self.has_score(t, e)]
        self.owed = Counter(t.spec.name for t, _ in self.todo)

    def has_score(self, task: PlannedTask, planned: PlannedEpisode) -> bool:
        episode = self.episodes.get(planned.key)
        return episode is not None and isinstance(outcome_of(episode, task.spec.seats), Score)

    async def play_all(self) -> None:
        for task in self.plan.tasks:
            self._report(task)
        pending = iter(self.todo)
        workers = min(self.plan.config.concurrency.limit, len(self.todo))
        # A fixed crew pulls from one iterator: memory does not grow with the plan.
        try:
            async with asyncio.TaskGroup() as crew:
                for _ in range(workers):
                    crew.create_task(self._work(pending))
        except* (OsimError, OSError) as group:
            # One of them says what is wrong with the whole run (budget, configuration, disk).
            raise group.exceptions[0] from None
        finally:
            await asyncio.to_thread(self.store.flush)

    async def _work(self, pending: Iterable[tuple[PlannedTask, PlannedEpisode]]) -> None:
        for task, planned in pending:
            async with self.limiter.slot():
                if self.stopped or self.should_stop():
                    self.stopped = True
                    return
                self.episodes[planned.key] = await self._play(task, planned)
            self.fresh += 1
            self.owed[task.spec.name] -= 1
            self._report(task)

    async def _play(self, task: PlannedTask, planned: PlannedEpisode) -> Episode:
        """Play until there is a score, at most `attempts` times; every try is kept, because its calls were paid."""
        spec = task.spec
        env = spec.env(task.profile)
        for attempt in range(self.plan.config.attempts):
            players, judge = self.contestants.table(spec, env.seats, self.store.attempts(planned))
            episode = await play(
                env,
                planned.row,
                players,
                judge=judge,
                seed=planned.seed,
                setting_seed=planned.setting_seed,
                limits=spec.limits,
                scorer=task.profile,
            )
            self.store.put(planned, episode)
            outcome = outcome_of(episode, spec.seats)
            if isinstance(outcome, Score):
                self.limiter.succeeded()
                break
            if outcome.reason in STRAIN:
                self.limiter.strained()
            if outcome.reason is FailureReason.BUG or attempt + 1 == self.plan.config.attempts:
                break
        return episode

    def _report(self, task: PlannedTask) -> None:
        now = time.monotonic()
        last = self.reported.get(task.spec.name, -math.inf)
        owed = self.owed[task.spec.name]
        if self.on_progress is None or (0 < owed < len(task.episodes) and now - last < REPORT_EVERY_S):
            return
        self.reported[task.spec.name] = now
        found = [self.episodes[e.key] for e in task.episodes if e.key in self.episodes]
        outcomes = [(outcome_of(e, task.spec.seats), e.row.cluster) for e in found]
        scored = [(o.value, c) for o, c in outcomes if isinstance(o, Score)]
        mean = half_width = None
        if scored:
            statistic = Clustered.of([v for v, _ in scored], [c for _, c in scored])
            estimate = JointBootstrap(0, draws=200).estimate(task.spec.name, statistic, unit=True)
            mean, half_width = estimate.value, estimate.half_width
        elapsed = now - self.started
        left = len(self.todo) - self.fresh
        self.on_progress(
            Progress(
                task=task.spec.name,
                done=len(scored),
                planned=len(task.episodes),
                mean=mean,
                half_width=half_width,
                unscored=sum(isinstance(o, Unscored) for o, _ in outcomes),
                in_flight_limit=self.limiter.limit,
                eta_s=elapsed / self.fresh * left if self.fresh else None,
                cost_usd=sum(call.cost_usd for e in found for call in e.judge_calls),
            )
        )
