"""A person works with an AI assistant on a problem or a document, at most eight messages each. Pure.

For a document the assistant is asked for the final version at the end; under author the person rates the assistant.
Profiles:
* strict (reward): mean of the parts that the row asks for, each on [0, 1]: likeness of writing and of interaction
  ((rating - 1) / 4), share of matched traits per style, the document ((rating - 1) / 9); an empty message is a format
  error; ending before any message, or mostly repeating task or assistant, is 0;
* soul (OdysSim): the same judges with ratings / 5 and / 10, and 0 for traits that the row does not name; it knows no
  format error: an empty message counts as one of the eight and is shown as "(no message)", here and under author;
* author: 1 - |rating - real rating| / 9; over all rows, how ratings correlate (see `task`).
A judge that fails, or forgets a trait, leaves the episode Unscored. Traits are matched by number, not by order.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from common.errors import DataError
from envs.env import Done, Feedback, FeedbackAsk, FormatError, JudgePanel
from envs.registry import Profile
from envs.tasks.quoting import copied_share, without_quotes
from envs.tasks.schema import data_of
from envs.tasks.sim_arena.prompts import (
    CRITIC,
    DOCUMENT_JUDGE,
    END,
    FINAL,
    INTERACTION_JUDGE,
    RATE,
    ROLES,
    START,
    TRAITS_JUDGE,
    WRITING_JUDGE,
    Traits,
    assistant_grounding,
    numbered,
    person_grounding,
    real_talk,
)
from envs.tasks.sim_arena.rows import Kind, Session
from envs.tasks.talk import Line, transcript
from envs.types import FailureReason, Message, Outcome, Row, Score, Seat, Unscored

USER: Seat = "user"
ASSISTANT: Seat = "assistant"
SEATS = (USER, ASSISTANT)
MAX_MESSAGES = 8
MAX_COPIED = 0.5
MARK = re.compile(r"^\s*(?:message|response|query)\s*:\s*", re.IGNORECASE | re.MULTILINE)
NUMBER = re.compile(r"\A\D*?(10|[1-9])(?:\s*/\s*10)?\D*\Z")
PLAIN_ADVICE = "Write more like this person: mind length, tone, spelling and how help is asked for."


@dataclass(frozen=True)
class Work:
    """The session so far."""

    session: Session
    rates: bool
    lines: tuple[Line, ...] = ()
    ended: bool = False
    document: str | None = None
    rating: int | None = None

    def texts(self, seat: Seat) -> list[str]:
        return [line.shown for line in self.lines if line.seat == seat and line.shown]

    @property
    def talking(self) -> bool:
        """The conversation itself goes on."""
        return not self.ended and len(self.lines) < 2 * MAX_MESSAGES

    @property
    def wants_document(self) -> bool:
        return self.session.kind == "doc" and self.document is None and bool(self.texts(ASSISTANT))

    def talk(self) -> str:
        """For a judge."""
        person = ROLES[self.session.kind][1]
        return transcript(
            (person if line.seat == USER else "ASSISTANT", line.shown) for line in self.lines if line.shown
        )


@dataclass(frozen=True)
class SimArenaEnv:
    """Rules of the session for one kind of task under one scorer profile."""

    kind: Kind
    profile: Profile = "strict"
    seats: tuple[Seat, ...] = SEATS

    def start(self, row: Row, rng: Random) -> Work:
        session = data_of(Session, row)
        if self.profile == "author" and session.rating is None:
            raise DataError("no real rating to compare with", where=row.prompt_id, fix="use the authors' files")
        return Work(session, rates=self.profile == "author")

    def turn(self, state: Work) -> Sequence[Seat] | Done:
        if state.talking:
            return (SEATS[len(state.lines) % 2],)
        if state.wants_document:
            return (ASSISTANT,)
        if state.rates and state.rating is None:
            return (USER,)
        return Done("ended by the person" if state.ended else "message limit")

    def view(self, state: Work, seat: Seat) -> Sequence[Message]:
        grounding = (person_grounding if seat == USER else assistant_grounding)(state.session)
        view = [Message("system", grounding), *([Message("user", START)] if seat == USER else [])]
        for line in state.lines:
            if line.seat == seat:
                view.append(Message("assistant", line.raw))
            elif line.shown:
                view.append(Message("user", line.shown))
        if seat == ASSISTANT and not state.talking and self.kind == "doc" and state.texts(ASSISTANT):
            view.append(Message("user", FINAL))
            view += [] if state.document is None else [Message("assistant", state.document)]
        if seat == USER and not state.talking and not state.wants_document and state.rates:
            view.append(Message("user", RATE))
            view += [] if state.rating is None else [Message("assistant", str(state.rating))]
        return view

    def hear(self, state: Work, seat: Seat, text: str) -> Work | FormatError:
        if seat == ASSISTANT:
            if not state.talking:
                return replace(state, document=text)
            return replace(state, lines=(*state.lines, Line(seat, text, text.strip() or "(no answer)")))
        if not state.talking:
            found = NUMBER.match(text.strip())
            return replace(state, rating=int(found.group(1))) if found else FormatError("no rating from 1 to 10")
        if END in text.lower():
            return replace(state, lines=(*state.lines, Line(seat, text, "")), ended=True)
        message = MARK.split(text)[-1].strip()
        if not message and self.profile == "strict":
            return FormatError("an empty message")
        return replace(state, lines=(*state.lines, Line(seat, text, message or "(no message)")))

    def score(self, state: Work) -> Mapping[Seat, Outcome | JudgePanel]:
        if self.profile == "author":
            return {USER: _rated(state)}
        fault = fault_of(state) if self.profile == "strict" else None
        return {USER: _panel(state, self.profile) if fault is None else Score(0.0, explanation=fault)}

    def feedback(self, state: Work, seat: Seat) -> Feedback | FeedbackAsk | None:
        if seat != USER:
            return None
        if fault := fault_of(state):
            return Feedback(f"Last time {fault}.", sees_gold=False)
        fields = {"real": real_talk(state.session), "transcript": state.talk()}
        hidden = state.session.queries
        return FeedbackAsk(
            CRITIC.id, fields, sees_gold=True, text=lambda v: without_quotes(v.feedback, hidden) or PLAIN_ADVICE
        )

    def privileged(self, row: Row, seat: Seat) -> str | None:
        """What the real person wrote."""
        said = "\n".join(f"- {query}" for query in data_of(Session, row).queries)
        return f"What this person really wrote, in order:\n{said}" if seat == USER else None


def fault_of(state: Work) -> str | None:
    """What earns nothing, by rule."""
    own = "\n".join(state.texts(USER))
    if not own:
        return "you ended before you wrote anything"
    if copied_share(own, "\n".join(state.texts(ASSISTANT))) > MAX_COPIED:
        return "your messages mostly repeated the assistant"
    if state.session.kind == "doc" and copied_share(own, state.session.task) > MAX_COPIED:
        return "your messages mostly repeated the task"
    return None


def _rated(state: Work) -> Outcome:
    if state.rating is None or state.session.rating is None:
        return Score(0.0, format_error=True, explanation="no rating")
    gap = abs(state.rating - state.session.rating)
    return Score(max(0.0, 1 - gap / 9), {"rating": float(state.rating), "real rating": state.session.rating})


def _panel(state: Work, profile: Profile) -> JudgePanel:
    """The judges' questions, and how their verdicts become one score."""
    session, talk = state.session, state.talk()
    own = transcript((ROLES[session.kind][1], text) for text in state.texts(USER))
    real = transcript((ROLES[session.kind][1], query) for query in session.queries)
    questions: list[tuple[str, Mapping[str, Any]]] = [
        (WRITING_JUDGE.id, {"real": real, "transcript": own}),
        (INTERACTION_JUDGE.id, {"real": real_talk(session), "transcript": talk}),
    ]
    if session.features:
        questions.append((TRAITS_JUDGE.id, {"traits": numbered(session.features), "transcript": talk}))
    if session.kind == "doc":
        fields = {
            "task": session.task,
            "preferences": session.preferences or "(not stated)",
            "document": state.document or "(no document was made)",
        }
        questions.append((DOCUMENT_JUDGE.id, fields))

    def combine(values: Sequence[Any]) -> Outcome:
        verdicts = dict(zip((spec for spec, _ in questions), values, strict=True))
        floor = 1 if profile == "strict" else 0
        parts = {
            name: (verdicts[spec].score - floor) / (5 - floor)
            for name, spec in (("writing", WRITING_JUDGE.id), ("interaction", INTERACTION_JUDGE.id))
        }
        if session.kind == "doc":
            parts["document"] = (verdicts[DOCUMENT_JUDGE.id].score - floor) / (10 - floor)
        matched = matches(session, verdicts[TRAITS_JUDGE.id]) if session.features else {}
        if isinstance(matched, Unscored):
            return matched
        parts |= matched if profile == "strict" else _soul_traits(session, matched)
        return Score(sum(parts.values()) / len(parts), parts)

    return JudgePanel(tuple(questions), combine)


def matches(session: Session, verdict: Traits) -> dict[str, float] | Unscored:
    """Share of matched traits per style; Unscored unless the judge judged every number exactly once."""
    numbers = [trait.number for trait in verdict.traits]
    if sorted(numbers) != list(range(1, len(session.features) + 1)):
        return Unscored(
            FailureReason.JUDGE_FAILED, f"{TRAITS_JUDGE.id}: judged traits {numbers}, not all of them once"
        )
    found = {trait.number: trait.match for trait in verdict.traits}
    by_style: dict[str, list[bool]] = {}
    for number, feature in enumerate(session.features, start=1):
        by_style.setdefault(f"{feature.style} traits", []).append(found[number])
    return {name: sum(hits) / len(hits) for name, hits in by_style.items()}


def _soul_traits(session: Session, matched: Mapping[str, float]) -> dict[str, float]:
    """OdysSim: one rate over all traits in mathematics, one per style for documents; a missing list counts 0."""
    if session.kind == "doc":
        return {f"{style} traits": matched.get(f"{style} traits", 0.0) for style in ("writing", "interaction")}
    total = sum(share * len(session.features_of(name.split()[0])) for name, share in matched.items())
    return {"traits": total / len(session.features) if session.features else 0.0}
