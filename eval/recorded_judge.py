"""A judge that answers from the calls of a recorded episode: rescoring without asking anybody. Pure.

A question is known by its messages (instructions, fields, schema in words). A question that was not asked then, for
example after its template changed, has no recorded answer: JudgeFailed, never another question's verdict.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from common.seeds import derive_seed
from envs.client.structured import parse
from envs.judges.base import JudgeFailed, Verdict
from envs.judges.model import messages_of
from envs.judges.spec import JudgeSpec
from envs.types import JudgeCall

MAX_ATTEMPTS = 16
"""Tries of an episode whose judge seeds are looked up (eval/retry.py)."""


class RecordedJudge:
    """Verdicts of one episode's own judge calls."""

    def __init__(self, calls: Sequence[JudgeCall], specs: Iterable[JudgeSpec]) -> None:
        self._calls = [c for c in calls if c.reply is not None and "messages" in c.request]
        self._specs = {spec.id: spec for spec in specs}

    async def ask(self, spec: str, fields: Mapping[str, Any], *, seed: int) -> Verdict | JudgeFailed:
        found = self._specs[spec]
        seeds = (seed, *(derive_seed(seed, "attempt", k) for k in range(1, MAX_ATTEMPTS)))
        for one in seeds:
            asked = [{"role": m.role, "content": m.content} for m in messages_of(found, fields, one)]
            for call in reversed(self._calls):
                if list(call.request["messages"])[: len(asked)] != asked:
                    continue
                value = parse(found.schema, call.reply or "")
                if not isinstance(value, str):
                    return Verdict(value, (call,))
        return JudgeFailed(f"no usable recorded reply to {spec} version {found.version}")
