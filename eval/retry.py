"""Another try of an episode that had no score: the policy is asked the same, judge and partner with another seed.

Recorded replies are keyed by the request, seed included: without another seed a judge whose reply was unusable would
be given the very same recorded reply again. The policy keeps its seed: a retry never draws it a better answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from common.seeds import derive_seed
from envs.judges.base import Judge, JudgeFailed, Verdict
from envs.players.base import Ask, Player, Said, Session
from envs.types import Limits, Seat, SeatTrace


@dataclass(frozen=True)
class RetriedJudge:
    """`judge` with the seeds of try number `attempt`."""

    judge: Judge
    attempt: int

    async def ask(self, spec: str, fields: Mapping[str, Any], *, seed: int) -> Verdict | JudgeFailed:
        return await self.judge.ask(spec, fields, seed=derive_seed(seed, "attempt", self.attempt))


@dataclass(frozen=True)
class RetriedPlayer:
    """`player` with the seeds of try number `attempt`."""

    player: Player
    attempt: int

    @property
    def token_exact(self) -> bool:
        return self.player.token_exact

    def join(self, seat: Seat, *, learnable: bool, limits: Limits, episode_id: str) -> Session:
        inner = self.player.join(seat, learnable=learnable, limits=limits, episode_id=episode_id)
        return _RetriedSession(inner, self.attempt)


@dataclass(frozen=True)
class _RetriedSession:
    inner: Session
    attempt: int

    async def act(self, ask: Ask) -> Said:
        return await self.inner.act(replace(ask, seed=derive_seed(ask.seed, "attempt", self.attempt)))

    def trace(self) -> SeatTrace:
        return self.inner.trace()
