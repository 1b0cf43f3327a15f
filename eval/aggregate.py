"""Episodes to results: coverage, means, parts and baseline of each task, all from one joint resampling. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from envs.types import Episode, FailureReason, Score, Seat, Stop, Unscored
from eval.baseline import AnswerFrequency, answer_key, fit, part_of
from eval.plan import EvalPlan, PlannedEpisode, PlannedTask
from eval.results import Item, PartResult, Results, TaskResult
from eval.soul_index import axis_of, soul_index
from eval.stats import Clustered, Estimate, JointBootstrap

NOT_RUN = "not_run"


def outcome_of(episode: Episode, seats: Sequence[Seat]) -> Score | Unscored:
    """One outcome for an episode: the policy seats' mean; unscored as soon as one of them is.

    A policy seat that broke the format leaves the others without a partner. That is the policy's own fault, so the
    episode is worth 0 and is never left out.
    """
    outcomes = [episode.outcomes.get(seat) for seat in seats]
    if episode.stop is Stop.FORMAT_ERROR:
        for outcome in outcomes:
            if isinstance(outcome, Score) and outcome.format_error:
                return outcome
    for outcome in outcomes:
        if isinstance(outcome, Unscored):
            return outcome
    scores = [o for o in outcomes if isinstance(o, Score)]
    if len(scores) != len(outcomes):
        return Unscored(FailureReason.BUG, "the environment gave a policy seat no outcome")
    if len(scores) == 1:
        return scores[0]
    parts: dict[str, list[float]] = defaultdict(list)
    for score in scores:
        for name, value in score.parts.items():
            parts[name].append(value)
    return Score(
        value=sum(s.value for s in scores) / len(scores),
        parts={name: sum(values) / len(values) for name, values in parts.items()},
        format_error=any(s.format_error for s in scores),
    )


def item_of(planned: PlannedEpisode, episode: Episode | None, seats: Sequence[Seat]) -> Item:
    """The line of one planned episode in the results."""
    outcome = outcome_of(episode, seats) if episode is not None else None
    scored = isinstance(outcome, Score)
    return Item(
        row=planned.row.id,
        epoch=planned.epoch,
        cluster=planned.row.cluster,
        content=planned.content,
        key=planned.key,
        value=outcome.value if isinstance(outcome, Score) else None,
        reason=None if scored else (outcome.reason.value if isinstance(outcome, Unscored) else NOT_RUN),
        format_error=isinstance(outcome, Score) and outcome.format_error,
        parts=dict(outcome.parts) if isinstance(outcome, Score) else {},
    )


def aggregate(
    plan: EvalPlan,
    episodes: Mapping[str, Episode],
    *,
    name: str,
    wall_s: float = 0.0,
    provenance: Mapping[str, str] | None = None,
) -> Results:
    """Results of a plan from its episodes by key; planned episodes that are absent count as not run."""
    bootstrap = JointBootstrap(plan.config.seed, draws=plan.config.statistics.draws)
    tasks = tuple(_task_result(task, episodes, bootstrap) for task in plan.tasks)
    played = [episodes[e.key] for e in plan.episodes if e.key in episodes]
    refusal = _refusal(tasks, plan.config.min_coverage)
    return Results(
        name=name,
        model=plan.model,
        plan=plan.sha,
        groups=tuple(sorted({e.group for e in plan.episodes})),
        seed=plan.config.seed,
        epochs=plan.config.epochs,
        profile=plan.config.profile,
        tasks=tasks,
        index=None if refusal else soul_index(tasks, bootstrap),
        index_refused=refusal,
        absent=dict(plan.absent),
        control=plan.config.control,
        wall_s=wall_s,
        cost_usd=sum(call.cost_usd for e in played for call in e.judge_calls),
        generated_tokens=sum(_generated(e) for e in played),
        provenance=dict(provenance or {}),
    )


def _refusal(tasks: Sequence[TaskResult], minimum: float) -> str:
    """Why there is no index; empty when every SOUL task is covered."""
    low = [t for t in tasks if axis_of(t.task) is not None and t.coverage < minimum]
    names = ", ".join(f"{t.task} {t.coverage:.1%}" for t in low)
    return f"coverage below {minimum:.0%}: {names}" if low else ""


def _generated(episode: Episode) -> int:
    """Tokens that the policy (and partners) drew, locally or by an API."""
    local = sum(trace.sampled for trace in episode.traces.values())
    return local + sum(c.completion_tokens for c in episode.judge_calls if c.role == "policy" and not c.cached)


def _task_result(task: PlannedTask, episodes: Mapping[str, Episode], bootstrap: JointBootstrap) -> TaskResult:
    spec = task.spec
    items = tuple(item_of(e, episodes.get(e.key), spec.seats) for e in task.episodes)
    part_names = [part_of(spec, e.row) for e in task.episodes]
    unscored = Counter(i.reason for i in items if i.reason is not None)
    predictor = fit(spec, task.training_rows)
    right = _baseline_values(task, predictor, part_names)
    summary = _Summary(spec.name, items, part_names, right, bootstrap)
    return TaskResult(
        task=spec.name,
        version=spec.version,
        axis=spec.axis,
        profile=task.profile,
        metric=spec.metric.name,
        direction="higher" if spec.metric.higher_is_better else "lower",
        planned=len(items),
        scored=sum(i.value is not None for i in items),
        unscored=dict(unscored),
        format_errors=sum(i.format_error for i in items),
        estimate=summary.estimate(),
        baseline=summary.baseline(),
        baseline_note=predictor.note if predictor else "",
        parts=summary.parts(),
        items=items,
        licence=spec.licence,
        extra=_dataset_level(task, episodes),
    )


def _dataset_level(task: PlannedTask, episodes: Mapping[str, Episode]) -> dict[str, float]:
    if task.spec.aggregate is None:
        return {}
    return dict(task.spec.aggregate([episodes[e.key] for e in task.episodes if e.key in episodes]))


def _baseline_values(
    task: PlannedTask, predictor: AnswerFrequency | None, parts: Sequence[str | None]
) -> list[float | None]:
    keys = [answer_key(e.row) if predictor else None for e in task.episodes]
    return [predictor.right(k, p) if predictor and k else None for k, p in zip(keys, parts, strict=True)]


class _Summary:
    """All estimates of one task share one set of draws of its clusters."""

    def __init__(
        self,
        task: str,
        items: Sequence[Item],
        parts: Sequence[str | None],
        baseline: Sequence[float | None],
        bootstrap: JointBootstrap,
    ) -> None:
        self._task, self._bootstrap = task, bootstrap
        self._universe = sorted({i.cluster for i in items})
        self._values: dict[str, list[tuple[float, str]]] = defaultdict(list)
        self._baselines: dict[str, list[tuple[float, str]]] = defaultdict(list)
        self._unit: dict[str, bool] = defaultdict(lambda: True)
        for item, part, right in zip(items, parts, baseline, strict=True):
            # The baseline is measured on the same episodes as the model.
            if item.value is None:
                continue
            for name in ("", part) if part else ("",):
                self._values[name].append((item.value, item.cluster))
                if right is not None:
                    self._baselines[name].append((right, item.cluster))
            for name, value in item.parts.items():
                self._values[name].append((value, item.cluster))
                self._unit[name] &= 0 <= value <= 1

    def estimate(self) -> Estimate | None:
        return self._estimate("", self._values.get("", []))

    def baseline(self) -> Estimate | None:
        return self._estimate("", self._baselines.get("", []))

    def parts(self) -> tuple[PartResult, ...]:
        out = []
        for name in sorted(n for n in self._values if n):
            estimate = self._estimate(name, self._values[name])
            if estimate is not None:
                baseline = self._estimate(name, self._baselines.get(name, []))
                out.append(PartResult(name=name, estimate=estimate, baseline=baseline))
        return tuple(out)

    def _estimate(self, name: str, values: Sequence[tuple[float, str]]) -> Estimate | None:
        if not values:
            return None
        statistic = Clustered.of([v for v, _ in values], [c for _, c in values], universe=self._universe)
        return self._bootstrap.estimate(self._task, statistic, unit=self._unit[name])
