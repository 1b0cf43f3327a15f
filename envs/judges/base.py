"""The Judge protocol: a question in, a validated verdict or a failure out. No third answer, no default."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from envs.types import JudgeCall


@dataclass(frozen=True)
class Verdict:
    """A reply that validated against the spec's schema."""

    value: Any
    calls: tuple[JudgeCall, ...] = ()


@dataclass(frozen=True)
class JudgeFailed:
    """No valid reply, after all retries and re-asks."""

    detail: str
    calls: tuple[JudgeCall, ...] = ()


class Judge(Protocol):
    """Answers judge and critic asks. Safe for concurrent calls."""

    async def ask(self, spec: str, fields: Mapping[str, Any], *, seed: int) -> Verdict | JudgeFailed:
        """`spec` is a JudgeSpec's id; `seed` selects the sample, so that equal questions may be asked again."""
        ...
