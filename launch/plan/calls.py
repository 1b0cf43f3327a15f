"""What an RL step asks of judges, critics and partners, by rehearsal: a few rows of each task are played by scripted
players before a judge that only listens (eval/estimate.py). No network.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping

from common.errors import UsageError
from envs.client.config import ClientConfig, Price
from envs.types import Row
from eval.config import EvalConfig
from eval.estimate import SAMPLE, Load, estimate
from eval.plan import make_plan
from launch.plan.report import Line
from rl.config import RLConfig, TaskConfig

POLICY = "policy"


def loads_per_step(config: RLConfig) -> tuple[dict[str, Load], list[str]]:
    """By role, of one step; and the tasks that could not be rehearsed, each with the reason. The policy's own turns
    are left out: the engine plays them, and partners without an endpoint."""
    total: dict[str, Load] = defaultdict(Load)
    unknown = []
    weights = sum(t.weight for t in config.tasks)
    for task in config.tasks:
        try:
            loads = _of_an_episode(task, config.sampling.max_tokens)
        except UsageError as e:
            unknown.append(f"{task.task}: {e.what}")
            continue
        drafts = task.weight / weights * config.groups_per_step * config.samples_of(task)
        refined = drafts if task.algorithm.name == "verbal_feedback" else 0.0
        for role, load in loads.items():
            _add(total[role], load, drafts + refined)
        for spec in task.resolve().judges:
            if spec.role == "critic" and refined and "critic" not in loads:
                _add(total["critic"], Load(1, spec.max_tokens, spec.max_tokens / 3, spec.max_tokens), drafts)
    return dict(total), unknown


def call_lines(config: RLConfig, loads: Mapping[str, Load], generate_s: float) -> tuple[list[Line], list[str]]:
    """Calls, rate and price by role; and a problem when the run would cost more than its budget."""
    lines: list[Line] = []
    likely = most = 0.0
    for role, load in sorted(loads.items()):
        price = _price(config.client, role)
        likely += load.cost_usd(price, most=False)
        most += load.cost_usd(price, most=True)
        rate = load.calls / generate_s if generate_s else 0.0
        lines.append(
            (
                role,
                f"{load.calls:,.0f} calls a step, {rate:.1f} a second while generating; "
                f"{load.prompt_tokens:,.0f} tokens in, {load.likely_completion_tokens:,.0f} to "
                f"{load.most_completion_tokens:,.0f} out",
            )
        )
    if not most:
        return lines, []
    lines.append(("price", f"${likely * config.steps:,.2f} to ${most * config.steps:,.2f} for {config.steps} steps"))
    budget = config.client.max_usd if config.client else None
    if budget is not None and likely * config.steps > budget:
        affordable = int(budget / likely)
        return lines, [
            f"judges are likely to cost ${likely * config.steps:,.2f}, more than client.max_usd {budget:g}, which "
            f"pays for steps={affordable}"
        ]
    return lines, []


def _of_an_episode(task: TaskConfig, max_tokens: int) -> dict[str, Load]:
    config = EvalConfig.model_validate(
        {
            "suite": task.task,
            "split": task.split,
            "limit": SAMPLE,
            "seed": task.rows_seed,
            "profile": task.profile,
            "baseline_rows": 0,
            "decoding": {"max_tokens": max_tokens},
        }
    )
    found = asyncio.run(estimate(make_plan(config, "plan", rows={task.task: _rows(task)})))
    out: dict[str, Load] = {}
    for one in found.tasks:
        for role, load in one.loads.items():
            if role != POLICY and one.episodes:
                out[role] = Load()
                _add(out[role], load, 1 / one.episodes)
    return out


def _rows(task: TaskConfig) -> list[Row]:
    """A few rows; the task's own examples where it ships none and no file is given."""
    spec = task.resolve()
    if task.data is None and spec.read is not None and spec.examples is not None:
        return list(spec.examples())[:SAMPLE]
    return list(spec.rows(task.split, SAMPLE, task.rows_seed))


def _add(total: Load, load: Load, times: float) -> None:
    total.calls += load.calls * times
    total.prompt_tokens += load.prompt_tokens * times
    total.likely_completion_tokens += load.likely_completion_tokens * times
    total.most_completion_tokens += load.most_completion_tokens * times


def _price(client: ClientConfig | None, role: str) -> Price:
    endpoint = getattr(client, role, None)
    return endpoint.price if endpoint else Price()
