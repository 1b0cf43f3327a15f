"""One turn of a simulated user: first or later, to end or not to end. Pure.

strict (reward), in this order: an empty turn is a format error; where the real user ended, 1 for ending and 0 for
going on; ending anywhere else is 0; a copy of the intent is 0; naming one or two answer options of one's own question
is 0; then a judge decides. A turn that does not pursue the intent as a user would is 0, so gibberish earns nothing.
Else: PRISM, mean of human-likeness and of 1 less a tenth for each content word taken from the intent, times the
length factor of `envs.tasks.length` (1 up to 60 words); commonsense_qa, 1; natural_questions, 1 if refused. UserLM's
overlap, a share of the turn's words, is reported and not rewarded: other words would hide what the intent gave.
soul is OdysSim's rule with its faults (it adds the overlap; an empty turn adheres to the role): for comparison only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random

from envs.env import Done, Feedback, FormatError, JudgeAsk
from envs.registry import Profile
from envs.tasks.length import length_factor
from envs.tasks.schema import data_of
from envs.tasks.userllm.measures import ADHERENCE, END, HUMAN, OVERLAP, ROLE, borrowed, copies, mentioned, overlap
from envs.tasks.userllm.prompts import (
    DETECTOR,
    REACTION_JUDGE,
    TURN_JUDGE,
    Detected,
    Judged,
    Reaction,
    grounding,
    situation,
)
from envs.tasks.userllm.rows import Moment
from envs.types import Message, Outcome, Row, Score, Seat

USER: Seat = "user"
FEW = 2
"""Naming this many options or fewer (but some) is answering."""


@dataclass(frozen=True)
class Asked:
    """The moment, and the reply once there is one."""

    moment: Moment
    raw: str | None = None

    @property
    def text(self) -> str:
        """The reply up to the end mark."""
        return (self.raw or "").partition(END)[0].strip()

    @property
    def ended(self) -> bool:
        return END in (self.raw or "")


class UserLLMEnv:
    """Rules of the turn under one scorer profile."""

    seats: tuple[Seat, ...] = (USER,)

    def __init__(self, profile: Profile = "strict") -> None:
        self.profile = profile

    def start(self, row: Row, rng: Random) -> Asked:
        return Asked(data_of(Moment, row))

    def turn(self, state: Asked) -> Sequence[Seat] | Done:
        return Done() if state.raw is not None else self.seats

    def view(self, state: Asked, seat: Seat) -> Sequence[Message]:
        view = [Message("system", grounding(state.moment)), Message("user", situation(state.moment))]
        return view if state.raw is None else [*view, Message("assistant", state.raw)]

    def hear(self, state: Asked, seat: Seat, text: str) -> Asked | FormatError:
        heard = replace(state, raw=text)
        if self.profile == "strict" and not heard.text and not heard.ended:
            return FormatError("an empty turn")
        return heard

    def score(self, state: Asked) -> Mapping[Seat, Outcome | JudgeAsk]:
        if self.profile == "soul":
            return {USER: soul_score(state)}
        fault = fault_of(state)
        if fault is not None:
            return {USER: Score(0.0, _overlap_part(state), explanation=fault)}
        if state.moment.last:
            return {USER: Score(1.0, explanation="ended where the real user did")}
        return {USER: _ask(state)}

    def feedback(self, state: Asked, seat: Seat) -> Feedback | None:
        """By rule; when to end is known from the real conversation, everything else is not."""
        fault = fault_of(state)
        about_the_end = fault in (TOO_LATE, TOO_EARLY)
        return None if fault is None else Feedback(f"Last time {fault}.", sees_gold=about_the_end)

    def privileged(self, row: Row, seat: Seat) -> str | None:
        """Whether it is time to end."""
        last = data_of(Moment, row).last
        return "You have what you came for." if last else "You do not have yet what you came for."


TOO_LATE = f"you went on although you had what you came for: reply {END} then"
TOO_EARLY = "you ended the conversation before you had what you came for"
COPIED = "you repeated the description of what you are after: use your own words and say less at once"
ANSWERED = "you named an answer to your own question: ask, and leave the answer to the assistant"


def fault_of(state: Asked) -> str | None:
    """What is wrong with a turn by rule, or None."""
    moment = state.moment
    if moment.last and state.ended:
        # The prompt names the end mark: who repeats the prompt has not ended.
        return COPIED if copies(moment.intent, state.raw or "") else None
    if moment.last:
        return TOO_LATE
    if state.ended:
        return TOO_EARLY
    if copies(moment.intent, state.text):
        return COPIED
    if moment.source == "commonsense_qa" and 0 < mentioned(moment.choices, state.text) <= FEW:
        return ANSWERED if mentioned(moment.choices, state.text) < len(moment.choices) else None
    return None


def _overlap_part(state: Asked) -> dict[str, float]:
    shared = overlap(state.moment.intent, state.text)
    return {} if shared is None else {OVERLAP: shared}


def _ask(state: Asked) -> JudgeAsk:
    moment, part = state.moment, _overlap_part(state)
    if moment.source == "natural_questions":
        return JudgeAsk(REACTION_JUDGE.id, _reaction_fields(state), _reaction)
    fields = {"intent": moment.intent, "history": moment.history or "(nothing)", "transcript": state.text}

    def combine(verdict: Judged) -> Score:
        valid = verdict.pursues_intent and verdict.speaks_as_user
        if moment.source == "commonsense_qa":
            return Score(float(valid), {ROLE: float(valid), **part}, explanation=verdict.reasoning)
        human = verdict.human_like / 10
        factor = length_factor(state.text, "", "strict")
        value = factor * (1 - borrowed(moment.intent, state.text) + human) / 2 if valid else 0.0
        return Score(value, {HUMAN: human, "length factor": factor, **part}, explanation=verdict.reasoning)

    return JudgeAsk(TURN_JUDGE.id, fields, combine)


def _reaction_fields(state: Asked) -> dict[str, str]:
    moment = state.moment
    return {
        "question": moment.question or moment.intent,
        "suggestion": moment.suggestion,
        "transcript": state.text,
    }


def _reaction(verdict: Reaction) -> Score:
    refused = float(verdict.verdict == "refused" and verdict.speaks_as_user)
    return Score(refused, {ADHERENCE: refused}, explanation=verdict.reasoning)


def soul_score(state: Asked) -> Outcome | JudgeAsk:
    """OdysSim's reward; only its made-up verdict of a judge that failed is left out."""
    moment = state.moment
    if moment.source == "commonsense_qa":
        count = mentioned(moment.choices, state.text)
        held = count == 0 or FEW < count < len(moment.choices)
        return Score(float(held), {ROLE: float(held)})
    if moment.source == "natural_questions":
        return JudgeAsk(REACTION_JUDGE.id, _reaction_fields(state), lambda v: Score(float(v.verdict == "refused")))
    shared, right = overlap(moment.intent, state.text) or 0.0, float(state.ended == moment.last)

    def combine(verdict: Detected) -> Score:
        human = float(verdict.verdict == "HUMAN")
        return Score((shared + right + human) / 3, {OVERLAP: shared, HUMAN: human})

    return JudgeAsk(DETECTOR.id, {"transcript": state.text}, combine)
