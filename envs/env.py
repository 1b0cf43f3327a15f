"""Environments are pure state machines: no network, no clock, no global RNG, no mutation of a given state.

`envs.play.play` is the only driver. Purity makes episodes replayable and forkable at any turn. A seat's view
is only ever extended (checked by `play`): this is what makes token-exact multi-turn contexts possible.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from random import Random
from typing import Any, Protocol, TypeVar

from envs.types import Feedback, Message, Outcome, Row, Seat

__all__ = ["Done", "Env", "Feedback", "FeedbackAsk", "FormatError", "JudgeAsk", "JudgePanel", "S"]

S = TypeVar("S")


@dataclass(frozen=True)
class FormatError:
    """A policy output that the environment cannot act on: the policy's own fault, scored and counted."""

    detail: str


@dataclass(frozen=True)
class Done:
    """The episode has ended."""

    reason: str = "finished"


@dataclass(frozen=True)
class JudgeAsk:
    """A question for the judge: the spec's id, the fields it fills in, and how a verdict becomes a score.

    `combine` takes a validated instance of the spec's schema. There is no default verdict: when the judge fails,
    `combine` is not called and the seat is Unscored(judge_failed). A verdict of the right form that cannot be used
    (it leaves out what was asked) is Unscored too.
    """

    spec: str
    fields: Mapping[str, Any]
    combine: Callable[[Any], Outcome]

    @property
    def questions(self) -> tuple[tuple[str, Mapping[str, Any]], ...]:
        """The (spec, fields) pairs to ask."""
        return ((self.spec, self.fields),)

    def outcome(self, values: Sequence[Any]) -> Outcome:
        """What the validated replies to `questions`, in their order, make."""
        return self.combine(values[0])


@dataclass(frozen=True)
class JudgePanel:
    """Several questions that make one score together; as soon as one has no verdict, the seat is Unscored.

    `combine` takes the validated instances in the order of `questions`.
    """

    questions: tuple[tuple[str, Mapping[str, Any]], ...]
    combine: Callable[[Sequence[Any]], Outcome]

    def outcome(self, values: Sequence[Any]) -> Outcome:
        """What the validated replies to `questions`, in their order, make."""
        return self.combine(values)


@dataclass(frozen=True)
class FeedbackAsk:
    """Feedback that a critic model must write; `text` takes it out of a validated instance of the spec's schema."""

    spec: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    sees_gold: bool = False
    text: Callable[[Any], str] = attrgetter("feedback")


class Env(Protocol[S]):
    """One task's rules. S is an immutable state."""

    @property
    def seats(self) -> tuple[Seat, ...]:
        """Everybody at the table, always in this order."""
        ...

    def start(self, row: Row, rng: Random) -> S:
        """The first state. `rng` is the same for all samples of a row. Raises DataError on a malformed row."""
        ...

    def turn(self, state: S) -> Sequence[Seat] | Done:
        """Who acts now; several seats act simultaneously."""
        ...

    def view(self, state: S, seat: Seat) -> Sequence[Message]:
        """That seat's private view, ending with a message it must answer when it is its turn.

        Between two of its turns it grows by one assistant message, what the seat said, and then by what it heard.
        """
        ...

    def hear(self, state: S, seat: Seat, text: str) -> S | FormatError:
        """Parse and apply an action."""
        ...

    def score(self, state: S) -> Mapping[Seat, Outcome | JudgeAsk | JudgePanel]:
        """Scores of a finished (or limit-stopped) episode, for the seats that have one."""
        ...

    def feedback(self, state: S, seat: Seat) -> Feedback | FeedbackAsk | None:
        """Verbal feedback for a seat after the episode, or None when there is none to give."""
        ...

    def privileged(self, row: Row, seat: Seat) -> str | None:
        """Privileged context for a teacher (on-policy distillation), or None when the task has none."""
        ...
