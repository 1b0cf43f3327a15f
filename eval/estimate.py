"""What an evaluation will ask of whom, before anything is spent: calls, tokens, price, disk. No network.

A few rows of each task are rehearsed: played by scripted players and a judge that only listens. What they would have
asked is scaled to the plan. Prompt tokens are counted from characters; completion tokens are given as likely (what
the rehearsal said) and at most (every rehearsed turn at its limit). An environment that a scripted answer ends early
makes its task look shorter than it is.
"""

from __future__ import annotations

import json
import zlib
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from envs.client.budget import estimate_tokens
from envs.client.config import Price
from envs.judges.base import JudgeFailed
from envs.judges.model import messages_of
from envs.judges.spec import JudgeSpec
from envs.play import play
from envs.players.base import Ask
from envs.players.scripted import ScriptedPlayer
from envs.types import Episode, Limits, Message, Row, Seat
from eval.plan import EvalPlan, PlannedTask

SAMPLE = 3
"""Rehearsed rows per task."""
FILLER = (
    "Let me think about what you said for a moment. I see why that matters to you, and I would like to find a way "
    "that works for both of us, even if it takes a little longer than we planned. "
)
LIKELY_CHARACTERS = 240
"""Of a turn in a task without sample answers."""
STORED_SHARE = 1.6
"""Bytes in the ledger per byte of one compressed episode: indexes and blobs."""


@dataclass
class Load:
    """What one role is asked."""

    calls: float = 0.0
    prompt_tokens: float = 0.0
    likely_completion_tokens: float = 0.0
    most_completion_tokens: float = 0.0

    def add(self, other: Load, times: float = 1.0) -> None:
        self.calls += other.calls * times
        self.prompt_tokens += other.prompt_tokens * times
        self.likely_completion_tokens += other.likely_completion_tokens * times
        self.most_completion_tokens += other.most_completion_tokens * times

    def cost_usd(self, price: Price, *, most: bool) -> float:
        completion = self.most_completion_tokens if most else self.likely_completion_tokens
        return (price.prompt * self.prompt_tokens + price.completion * completion) / 1e6


@dataclass(frozen=True)
class TaskEstimate:
    """What the episodes still to play of one task will ask for."""

    task: str
    episodes: int
    """Still to play."""
    loads: Mapping[str, Load]
    """By role: policy, partner, judge …"""
    disk_bytes: float


@dataclass(frozen=True)
class Question:
    """One judge question of the rehearsal, to try the real judge with."""

    spec: JudgeSpec
    fields: Mapping[str, Any]


@dataclass(frozen=True)
class Estimate:
    """The expected load of an evaluation, from a rehearsal with scripted endpoints."""

    tasks: tuple[TaskEstimate, ...]
    prompts: tuple[tuple[Message, ...], ...]
    """A real first prompt of each task, to try the real model with."""
    questions: tuple[Question, ...]
    """One per judge spec."""
    longest_prompt: int = 0
    """Tokens of the longest prompt of the evaluated model in the rehearsal."""

    def load(self, role: str) -> Load:
        total = Load()
        for task in self.tasks:
            if (one := task.loads.get(role)) is not None:
                total.add(one)
        return total

    @property
    def roles(self) -> list[str]:
        return sorted({role for task in self.tasks for role in task.loads}, key=lambda r: (r != "policy", r))

    @property
    def disk_bytes(self) -> float:
        return sum(task.disk_bytes for task in self.tasks)


@dataclass
class _Rehearsal:
    """Listens to one episode."""

    limits: Limits
    policy_tokens: int
    policy: Collection[Seat]
    judges: Mapping[str, JudgeSpec]
    loads: dict[str, Load] = field(default_factory=lambda: defaultdict(Load))
    prompts: list[tuple[Message, ...]] = field(default_factory=list)
    questions: list[Question] = field(default_factory=list)
    spoken: Counter[Seat] = field(default_factory=Counter)

    def player(self, seat: Seat, lines: Sequence[str]) -> ScriptedPlayer:
        role = "policy" if seat in self.policy else "partner"
        most = min(self.policy_tokens, self.limits.max_tokens) if role == "policy" else self.limits.max_tokens

        def say(ask: Ask) -> str:
            if role == "policy":
                self.prompts.append(ask.view)
            text = lines[self.spoken[seat] % len(lines)]
            self.spoken[seat] += 1
            prompt = _tokens(ask.view)
            self.loads[role].add(Load(1, prompt, min(most, estimate_tokens(len(text))), most))
            return text

        return ScriptedPlayer(say)

    async def ask(self, spec: str, fields: Mapping[str, Any], *, seed: int) -> JudgeFailed:
        """The judge's place."""
        found = self.judges[spec]
        self.questions.append(Question(found, dict(fields)))
        characters = sum(len(m.content) for m in messages_of(found, fields, seed))
        self.loads[found.role].add(Load(1, estimate_tokens(characters), found.max_tokens / 3, found.max_tokens))
        return JudgeFailed("a rehearsal has no verdict")


async def estimate(plan: EvalPlan, done: Collection[str] = ()) -> Estimate:
    """Rehearse the plan; `done` are keys of episodes that need not be played any more."""
    tasks: list[TaskEstimate] = []
    prompts: list[tuple[Message, ...]] = []
    questions: dict[str, Question] = {}
    longest = 0
    for task in plan.tasks:
        left = [e for e in task.episodes if e.key not in done]
        heard = [await _rehearse(task, e.row, e.setting_seed, plan) for e in _spread(left, SAMPLE)]
        loads: dict[str, Load] = defaultdict(Load)
        for rehearsal, _ in heard:
            for role, load in rehearsal.loads.items():
                loads[role].add(load, len(left) / len(heard))
            longest = max([longest, *map(_tokens, rehearsal.prompts)])
            questions |= {q.spec.id: q for q in rehearsal.questions}
        prompts += [rehearsal.prompts[0] for rehearsal, _ in heard[:1] if rehearsal.prompts]
        stored = sum(size for _, size in heard) / len(heard) if heard else 0.0
        tasks.append(TaskEstimate(task.spec.name, len(left), dict(loads), stored * len(left)))
    return Estimate(tuple(tasks), tuple(prompts), tuple(questions.values()), longest)


def _tokens(view: Sequence[Message]) -> int:
    return estimate_tokens(sum(len(m.content) for m in view))


def _spread(episodes: Sequence[Any], count: int) -> list[Any]:
    return [episodes[i * len(episodes) // count] for i in range(count)] if len(episodes) > count else list(episodes)


async def _rehearse(task: PlannedTask, row: Row, setting_seed: int, plan: EvalPlan) -> tuple[_Rehearsal, float]:
    spec = task.spec
    env = spec.env(task.profile)
    rehearsal = _Rehearsal(
        spec.limits, plan.config.decoding.max_tokens, spec.seats, {judge.id: judge for judge in spec.judges}
    )
    filler = (FILLER * 3)[:LIKELY_CHARACTERS]
    players = {
        seat: rehearsal.player(seat, tuple(spec.samples(row, seat)) if spec.samples else (filler,))
        for seat in env.seats
    }
    episode = await play(
        env, row, players, judge=rehearsal, seed=0, setting_seed=setting_seed, limits=spec.limits, scorer=task.profile
    )
    policy = rehearsal.loads["policy"]
    return rehearsal, _stored_bytes(episode) + 10 * (policy.prompt_tokens + policy.likely_completion_tokens)


def _stored_bytes(episode: Episode) -> float:
    views = {seat: [m.content for m in view] for seat, view in episode.views.items()}
    text = json.dumps([dict(episode.row.data), views], default=str).encode("utf-8", "replace")
    return len(zlib.compress(text)) * STORED_SHARE
