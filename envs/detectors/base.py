"""What a detector sees, and running all of them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from envs.detectors import address, copying, frame, leak, narration, register, repetition, rubric, script
from envs.types import Episode, Finding, Seat


@dataclass(frozen=True)
class Context:
    """One turn of one seat and what came before it.

    earlier: texts of earlier turns, anyone's. given: the other messages in the seat's view (instructions, stories).
    reference: the gold reply, if the task has one. hidden: texts that this seat must not give away.
    """

    text: str
    seat: Seat = ""
    earlier: tuple[str, ...] = ()
    given: tuple[str, ...] = ()
    reference: str | None = None
    hidden: tuple[str, ...] = ()


Detector = Callable[[Context], str | None]
"""The detail of a finding, or None."""

DETECTORS: Mapping[str, Detector] = {
    "judge_address": lambda c: address.find(c.text),
    "rubric_stuffing": lambda c: rubric.find(c.text),
    "broken_frame": lambda c: frame.find(c.text),
    "self_narration": lambda c: narration.find(c.text, c.seat),
    "repetition": lambda c: repetition.find(c.text),
    "copying": lambda c: copying.find(c.text, (*c.earlier, *((c.reference,) if c.reference else ()))),
    "hidden_leak": lambda c: leak.find(c.text, c.hidden),
    "script_switch": lambda c: script.find(c.text, (*c.given, *c.earlier)),
    "essay_register": lambda c: register.find(c.text),
}


def detect(context: Context, names: Sequence[str] = tuple(DETECTORS)) -> list[tuple[str, str]]:
    """(detector, detail) of every finding on one turn."""
    return [(name, detail) for name in names if (detail := DETECTORS[name](context)) is not None]


def inspect(
    episode: Episode,
    seats: Sequence[Seat],
    *,
    names: Sequence[str] = tuple(DETECTORS),
    references: Mapping[Seat, str] | None = None,
    hidden: Mapping[Seat, Sequence[str]] | None = None,
) -> tuple[Finding, ...]:
    """Findings on every turn of `seats`. A Finding's turn is the index of the say in the episode."""
    findings = []
    for index, say in enumerate(episode.says):
        if say.seat not in seats:
            continue
        context = Context(
            say.text,
            say.seat,
            earlier=tuple(s.text for s in episode.says[:index]),
            given=tuple(m.content for m in episode.views.get(say.seat, ()) if m.role != "assistant"),
            reference=(references or {}).get(say.seat),
            hidden=tuple((hidden or {}).get(say.seat, ())),
        )
        findings += [Finding(name, say.seat, index, detail) for name, detail in detect(context, names)]
    return tuple(findings)
