"""The data of an episode: rows, messages, sampled turns, token segments, outcomes. No I/O.

Invariants (tests/envs):
* the segments of a seat, concatenated, are exactly the token ids the engine saw at every turn;
* trainable ids are a subset of the ids that this seat's engine sampled;
* a failure of a judge, partner or engine is an `Unscored`, never a number.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

import msgspec

from common.files import hash_json

Seat = str
"""Name of a role at the table, e.g. "reader", "alice"."""

Role = Literal["system", "user", "assistant", "tool"]


class Message(msgspec.Struct, frozen=True, gc=False):
    """One chat message. The simulated human speaks as `assistant` in its own view (DESIGN 4).

    Not a dataclass: views are built and compared anew at every turn, and a struct costs a tenth of one.
    """

    role: Role
    content: str


@dataclass(frozen=True)
class Row:
    """One task instance. `id` is unique within its task; `cluster` is the unit that statistics resample."""

    task: str
    id: str
    cluster: str
    data: Mapping[str, Any]
    """JSON values only: the row is stored in the ledger and hashed."""

    @property
    def prompt_id(self) -> str:
        """Unique across tasks: names the row in seeds, groups and the ledger."""
        return f"{self.task}/{self.id}"

    @property
    def sha(self) -> str:
        """Content hash: two rows of equal content are the same instance, whatever file they came from."""
        return hash_json({"task": self.task, "id": self.id, "data": self.data})


@dataclass(frozen=True, slots=True)
class Say:
    """What a seat said. `to` None means everybody."""

    seat: Seat
    text: str
    to: frozenset[Seat] | None = None


@dataclass(frozen=True, slots=True)
class Segment:
    """A run of token ids in one seat's context: given to it, or sampled by it (then `trainable`).

    A turn whose weights changed under way has one trainable segment per weight version.
    logprobs: one per id, by the engine that sampled them, at the sampling temperature; None unless trainable.
    version: weight version that sampled them; None unless trainable.
    """

    ids: tuple[int, ...]
    trainable: bool
    turn: int
    logprobs: tuple[float, ...] | None = None
    version: int | None = None


@dataclass(frozen=True, slots=True)
class SeatTrace:
    """Append-only token history of one seat. The first segment is its first prompt."""

    seat: Seat
    learnable: bool
    segments: tuple[Segment, ...] = ()
    plain_prompt: tuple[int, ...] | None = None
    """The first prompt as it would have been without feedback, when the seat played with feedback."""

    @property
    def ids(self) -> tuple[int, ...]:
        return tuple(i for s in self.segments for i in s.ids)

    @property
    def trainable_mask(self) -> tuple[bool, ...]:
        return tuple(s.trainable for s in self.segments for _ in s.ids)

    @property
    def logprobs(self) -> tuple[float, ...]:
        """One per id of `ids`; 0.0 where the seat did not sample."""
        return tuple(p for s in self.segments for p in (s.logprobs or (0.0,) * len(s.ids)))

    @property
    def versions(self) -> tuple[int, ...]:
        """One per id of `ids`: the weight version that sampled it; -1 where the seat did not sample."""
        return tuple(-1 if s.version is None else s.version for s in self.segments for _ in s.ids)

    @property
    def sampled(self) -> int:
        """How many ids this seat sampled."""
        return sum(len(s.ids) for s in self.segments if s.trainable)


class FailureReason(StrEnum):
    """Why an episode has no score; none of these is the policy's own fault."""

    JUDGE_FAILED = "judge_failed"
    PARTNER_FAILED = "partner_failed"
    ENGINE_FAILED = "engine_failed"
    TIMEOUT = "timeout"
    BUG = "bug"


@dataclass(frozen=True, slots=True)
class Score:
    """A real score in [0, 1] (parts in their own units). An unparsable policy output is a Score with format_error."""

    value: float
    parts: Mapping[str, float] = field(default_factory=dict)
    format_error: bool = False
    explanation: str = ""

    def __post_init__(self) -> None:
        if not 0.0 <= self.value <= 1.0 or not all(math.isfinite(v) for v in self.parts.values()):
            raise ValueError(f"a score is a number in [0, 1] with finite parts: {self.value}, {dict(self.parts)}")


@dataclass(frozen=True, slots=True)
class Unscored:
    """No score exists. It leaves its group and every mean; it is counted."""

    reason: FailureReason
    detail: str = ""


Outcome = Score | Unscored


@dataclass(frozen=True, slots=True)
class JudgeCall:
    """One request to a judge, critic or partner, as recorded in the ledger."""

    role: str
    model: str
    request: Mapping[str, Any]
    reply: str | None
    error: str | None
    cost_usd: float
    wall_s: float
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached: bool = False
    """Answered from the cache: no network call, no cost."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A detector's finding on one turn."""

    detector: str
    seat: Seat
    turn: int
    detail: str


@dataclass(frozen=True, slots=True)
class Feedback:
    """Verbal feedback on a played episode for one seat.

    `text` is appended to the seat's first user message when the row is played again. `sees_gold` declares that
    the writer of the text saw the reference answer; reports show it.
    """

    text: str
    sees_gold: bool


@dataclass(frozen=True)
class Limits:
    """Bounds of one episode. Turn and token limits end it and it is scored; time limits make it Unscored(timeout)."""

    max_turns: int = 64
    """Rounds of turns; seats that act simultaneously share one."""
    max_tokens: int = 512
    """Sampled tokens per turn."""
    max_context_tokens: int = 32_768
    """Prompt and sampled tokens of one seat."""
    turn_timeout_s: float = 300.0
    episode_timeout_s: float = 1800.0
    engine_retries: int = 2
    """Repeats of a failed engine call, with the same seed."""


class Stop(StrEnum):
    """Why an episode ended."""

    FINISHED = "finished"
    TURN_LIMIT = "turn_limit"
    TOKEN_LIMIT = "token_limit"
    FORMAT_ERROR = "format_error"
    FAILED = "failed"


@dataclass(frozen=True)
class Episode:
    """Everything that happened in one play of one row."""

    row: Row
    seed: int
    says: tuple[Say, ...]
    views: Mapping[Seat, tuple[Message, ...]]
    """Each seat's final private view, without feedback."""
    traces: Mapping[Seat, SeatTrace]
    outcomes: Mapping[Seat, Outcome]
    judge_calls: tuple[JudgeCall, ...] = ()
    findings: tuple[Finding, ...] = ()
    wall_s: float = 0.0
    scorer: str = "strict"
    stop: Stop = Stop.FINISHED
    turns: int = 0
    setting_seed: int = 0
    """Seed of the environment's own draws: equal for all samples of a group."""
    opening: Mapping[Seat, int] = field(default_factory=dict)
    """How many messages of a seat's view its first prompt held."""
    feedback_text: Mapping[Seat, str] = field(default_factory=dict)
    """Feedback that was shown to seats in this episode."""
    feedback: Mapping[Seat, Feedback] = field(default_factory=dict)
    """Feedback that this episode earned, where asked for and given."""

    def first_view(self, seat: Seat) -> tuple[Message, ...]:
        """The messages of the seat's first prompt, without feedback."""
        return self.views[seat][: self.opening[seat]]
