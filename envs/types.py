"""The data of an episode: rows, messages, sampled turns, token segments, outcomes. No I/O.

Invariants (tests/envs):
* the segments of a seat, concatenated, are exactly the token ids the engine saw at every turn;
* trainable ids are a subset of the ids that this seat's engine sampled;
* a failure of a judge, partner or engine is an `Unscored`, never a number.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

Seat = str
"""Name of a role at the table, e.g. "reader", "alice"."""

Role = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True)
class Message:
    """One chat message. The simulated human speaks as `assistant` in its own view (DESIGN 4)."""

    role: Role
    content: str


@dataclass(frozen=True)
class Row:
    """One task instance. `id` is unique within its task; `cluster` is the unit that statistics resample."""

    task: str
    id: str
    cluster: str
    data: Mapping[str, Any]


@dataclass(frozen=True)
class Say:
    """What a seat said. `to` None means everybody."""

    seat: Seat
    text: str
    to: frozenset[Seat] | None = None


@dataclass(frozen=True)
class Segment:
    """A run of token ids in one seat's context: given to it, or sampled by it (then `trainable`).

    logprobs: one per id, by the engine that sampled them, at the sampling temperature; None unless trainable.
    version: weight version that sampled them; None unless trainable.
    """

    ids: tuple[int, ...]
    trainable: bool
    turn: int
    logprobs: tuple[float, ...] | None = None
    version: int | None = None


@dataclass(frozen=True)
class SeatTrace:
    """Append-only token history of one seat."""

    seat: Seat
    learnable: bool
    segments: tuple[Segment, ...] = ()

    @property
    def ids(self) -> tuple[int, ...]:
        return tuple(i for s in self.segments for i in s.ids)

    @property
    def trainable_mask(self) -> tuple[bool, ...]:
        return tuple(s.trainable for s in self.segments for _ in s.ids)


class FailureReason(StrEnum):
    """Why an episode has no score; none of these is the policy's own fault."""

    JUDGE_FAILED = "judge_failed"
    PARTNER_FAILED = "partner_failed"
    ENGINE_FAILED = "engine_failed"
    TIMEOUT = "timeout"
    BUG = "bug"


@dataclass(frozen=True)
class Score:
    """A real score in [0, 1] (parts in their own units). An unparsable policy output is a Score with format_error."""

    value: float
    parts: Mapping[str, float] = field(default_factory=dict)
    format_error: bool = False
    explanation: str = ""


@dataclass(frozen=True)
class Unscored:
    """No score exists. It leaves its group and every mean; it is counted."""

    reason: FailureReason
    detail: str = ""


Outcome = Score | Unscored


@dataclass(frozen=True)
class JudgeCall:
    """One request to a judge, critic or partner, as recorded in the ledger."""

    role: str
    model: str
    request: Mapping[str, Any]
    reply: str | None
    error: str | None
    cost_usd: float
    wall_s: float


@dataclass(frozen=True)
class Finding:
    """A detector's finding on one turn."""

    detector: str
    seat: Seat
    turn: int
    detail: str


@dataclass(frozen=True)
class Episode:
    """Everything that happened in one play of one row."""

    row: Row
    seed: int
    says: tuple[Say, ...]
    views: Mapping[Seat, tuple[Message, ...]]
    """Each seat's final private view."""
    traces: Mapping[Seat, SeatTrace]
    outcomes: Mapping[Seat, Outcome]
    judge_calls: tuple[JudgeCall, ...] = ()
    findings: tuple[Finding, ...] = ()
    wall_s: float = 0.0
    scorer: str = "strict"
