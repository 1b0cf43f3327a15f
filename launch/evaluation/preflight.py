"""The dry run: does everybody answer, and what will it take? Printed before anything long or paid begins.

The evaluated model is asked real first prompts of the plan (a few tokens, PROBES at once: their rate gives the time);
each judge spec is asked one question from the rehearsal, whose reply must validate; the partner is asked to say a
word. A few calls are spent; a failed one is told with its endpoint and fix, all of them at once. Nothing is scored.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from common.errors import GateError, UsageError
from envs.client.client import Answered, Client, Question
from envs.engine import EngineError
from envs.judges.model import messages_of
from envs.players.base import Ask, Player, PlayerFailed
from envs.types import JudgeCall, Limits, Message
from eval.estimate import Estimate, TaskEstimate
from eval.estimate import Question as Rehearsed
from eval.plan import EvalPlan

PROBES = 8
PROBE_TOKENS = 32
HELLO = (Message("user", "This is a connection test. Answer with one word: ready."),)
LONGEST_PROBE_S = 120.0


@dataclass(frozen=True)
class Checked:
    """What the dry run found."""

    estimate: Estimate
    lines: tuple[str, ...]
    """For people."""
    spent: tuple[JudgeCall, ...]
    """API calls that the check itself made."""
    seconds: float | None


async def preflight(
    plan: EvalPlan,
    estimate: Estimate,
    player: Player,
    client: Client,
    disk: Path,
    *,
    max_context: int | None = None,
) -> Checked:
    """Ask everybody once and add up. Raises UsageError when somebody does not answer, GateError beyond the budget."""
    _refuse_beyond_budget(estimate, client)
    spent: list[JudgeCall] = []
    lines: list[str] = []
    problems: list[str] = []
    rate = None
    if estimate.prompts:
        rate, line, problem = await _probe_policy(plan, estimate, player, spent)
        (problems if problem else lines).append(problem or line)
    for line, problem in [
        *await _probe_judges(estimate, client, spent),
        *await _probe_partner(estimate, client, spent),
    ]:
        (problems if problem else lines).append(problem or line)
    if problems:
        room = _room(plan, estimate, max_context)
        listing = "".join(f"\n  - {p}" for p in [*problems, *room])
        fix = "make room as said above" if room else "correct what is named above"
        raise UsageError(f"not everybody answers{listing}", where="dry run", fix=fix)
    lines += _room(plan, estimate, max_context)
    seconds = _seconds(plan, estimate, rate)
    lines += _table(estimate)
    lines += _totals(estimate, client, seconds, disk)
    return Checked(estimate, tuple(lines), tuple(spent), seconds)


@dataclass(frozen=True)
class _Rate:
    """Measured with PROBES requests at once."""

    tokens_per_s: float
    calls_per_s: float
    at_once: int


async def _probe_policy(
    plan: EvalPlan, estimate: Estimate, player: Player, spent: list[JudgeCall]
) -> tuple[_Rate | None, str, str]:
    at_once = min(PROBES, plan.config.concurrency.limit)
    prompts = [estimate.prompts[i % len(estimate.prompts)] for i in range(at_once)]
    limits = replace(Limits(), max_tokens=PROBE_TOKENS)
    sessions = [player.join("probe", learnable=False, limits=limits, episode_id=f"probe-{i}") for i in range(at_once)]
    warm = player.join("probe", learnable=False, limits=replace(limits, max_tokens=1), episode_id="probe")
    try:
        async with asyncio.timeout(LONGEST_PROBE_S):
            # The first call pays for imports, connections and caches: it is not measured.
            spent += (await warm.act(Ask(HELLO, HELLO, 0, 0))).calls
            started = time.monotonic()
            said = await asyncio.gather(
                *(s.act(Ask(p, p, 0, i)) for i, (s, p) in enumerate(zip(sessions, prompts, strict=True)))
            )
    except (EngineError, PlayerFailed) as e:
        return None, "", f"the evaluated model: {e}"
    except TimeoutError:
        return None, "", f"the evaluated model did not answer within {LONGEST_PROBE_S:g} s"
    wall = max(1e-6, time.monotonic() - started)
    calls = [call for one in said for call in one.calls]
    spent += calls
    fresh = [call for call in calls if not call.cached]
    tokens = sum(s.trace().sampled for s in sessions) + sum(c.completion_tokens for c in fresh)
    if calls and not fresh:
        return None, "✓ the evaluated model: recorded replies answer", ""
    rate = _Rate(tokens / wall, at_once / wall, at_once)
    text = f"✓ the evaluated model answers: {at_once} prompts at once in {wall:.1f} s"
    return rate, f"{text}, {rate.tokens_per_s:.0f} tokens/s" if tokens else text, ""


async def _probe_judges(estimate: Estimate, client: Client, spent: list[JudgeCall]) -> list[tuple[str, str]]:
    async def one(question: Rehearsed) -> tuple[str, str]:
        spec = question.spec
        asked = Question(spec.role, messages_of(spec, question.fields, 0), spec.max_tokens, 0, spec.temperature)
        answer = await client.ask_json(asked, spec.schema)
        spent.extend(answer.calls)
        if isinstance(answer, Answered):
            again = f" (asked {len(answer.calls)} times)" if len(answer.calls) > 1 else ""
            return f"✓ {spec.role} {spec.id} v{spec.version}: a valid verdict{again}", ""
        return "", f"{spec.role} {spec.id} v{spec.version}: {answer.kind}: {answer.detail}"

    return list(await asyncio.gather(*(one(q) for q in estimate.questions)))


async def _probe_partner(estimate: Estimate, client: Client, spent: list[JudgeCall]) -> list[tuple[str, str]]:
    if not estimate.load("partner").calls:
        return []
    answer = await client.ask(Question("partner", HELLO, PROBE_TOKENS * 8, 0))
    spent += answer.calls
    if isinstance(answer, Answered) and answer.value.strip():
        return [("✓ partner: answers", "")]
    detail = "it said nothing" if isinstance(answer, Answered) else f"{answer.kind}: {answer.detail}"
    return [("", f"partner: {detail}")]


def _room(plan: EvalPlan, estimate: Estimate, max_context: int | None) -> list[str]:
    """A warning when prompts and answers do not fit the engine."""
    needed = estimate.longest_prompt + plan.config.decoding.max_tokens
    if max_context is None or needed <= max_context:
        return []
    answer = plan.config.decoding.max_tokens
    return [
        f"! a prompt of about {estimate.longest_prompt:,} tokens and an answer of {answer} do not fit a context of "
        f"{max_context:,}: such episodes will have no score (lower decoding.max_tokens, or raise "
        "model.engine.max_context as far as the model goes)"
    ]


def _cost(estimate: Estimate, client: Client, *, most: bool) -> float:
    total = 0.0
    for role in estimate.roles:
        endpoint = getattr(client.config, role, None)
        if endpoint is not None:
            total += estimate.load(role).cost_usd(endpoint.price, most=most)
    return total


def _refuse_beyond_budget(estimate: Estimate, client: Client) -> None:
    limit = client.config.max_usd
    likely = _cost(estimate, client, most=False)
    if limit is not None and likely > limit - client.budget.spent_usd:
        raise GateError(
            f"this would likely cost ${likely:.2f}; ${limit - client.budget.spent_usd:.2f} of the budget are left",
            where="dry run",
            fix="raise client.max_usd, or evaluate fewer rows (limit=…)",
        )


def _seconds(plan: EvalPlan, estimate: Estimate, rate: _Rate | None) -> float | None:
    """From the measured rate of the evaluated model alone; judges and partners come on top."""
    load = estimate.load("policy")
    if rate is None or not load.calls:
        return None
    by_tokens = load.likely_completion_tokens / rate.tokens_per_s if rate.tokens_per_s else 0.0
    return max(by_tokens, load.calls / rate.calls_per_s / max(1.0, plan.config.concurrency.limit / rate.at_once))


def _table(estimate: Estimate) -> list[str]:
    roles = estimate.roles
    head = [
        "task",
        "episodes",
        *(f"{r} calls" for r in roles),
        "prompt tokens",
        "completion tokens (likely / at most)",
    ]
    rows = [head, *([*_row(t, roles)] for t in estimate.tasks)]
    if len(estimate.tasks) > 1:
        total = TaskEstimate(
            "total", sum(t.episodes for t in estimate.tasks), {r: estimate.load(r) for r in roles}, 0.0
        )
        rows.append(_row(total, roles))
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    return ["  ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
            for row in rows]  # fmt: skip


def _row(task: TaskEstimate, roles: Sequence[str]) -> list[str]:
    loads = [task.loads[r] for r in roles if r in task.loads]
    calls = [f"{task.loads[r].calls:,.0f}" if r in task.loads else "–" for r in roles]
    prompt = sum(load.prompt_tokens for load in loads)
    likely, most = sum(x.likely_completion_tokens for x in loads), sum(x.most_completion_tokens for x in loads)
    return [task.task, f"{task.episodes:,}", *calls, f"{prompt:,.0f}", f"{likely:,.0f} / {most:,.0f}"]


def _totals(estimate: Estimate, client: Client, seconds: float | None, disk: Path) -> list[str]:
    free = shutil.disk_usage(disk).free
    lines = [f"disk: about {_bytes(estimate.disk_bytes)} of {_bytes(free)} free"]
    priced = [
        r for r in estimate.roles if (e := getattr(client.config, r, None)) and (e.price.prompt or e.price.completion)
    ]
    if priced:
        likely, most = _cost(estimate, client, most=False), _cost(estimate, client, most=True)
        limit = client.config.max_usd
        lines.append(
            f"price: likely ${_usd(likely)}, at most ${_usd(most)}" + (f"; budget ${limit:.2f}" if limit else "")
        )
    elif any(getattr(client.config, r, None) for r in estimate.roles):
        lines.append("price: no prices configured (price.prompt and price.completion of each endpoint)")
    if seconds is not None:
        lines.append(f"time: about {_duration(seconds)} for the evaluated model, by the rate measured above")
    return lines


def _usd(value: float) -> str:
    return f"{value:.2f}" if value >= 0.1 or value == 0 else f"{value:.2g}"


def _bytes(n: float) -> str:
    for unit in ("B", "KB", "MB", "GB"):
        if n < 1000:
            return f"{n:.0f} {unit}"
        n /= 1000
    return f"{n:.1f} TB"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
