"""A user proxy talks with an assistant as long as the real user did; a judge compares the user turns. Pure.

The assistant answers anew (it alone knows the real conversation). Profiles:
* strict (reward): style, realism and fit to context, each 0 to 10, on [0, 1]; an empty turn is a format error; a
  proxy that mostly repeats its description or the assistant gets 0 without asking;
* soul, author: one similarity in [0, 1] (the authors' GTEval, which OdysSim uses too).
Lexical measures are parts: differences from the real user, never a reward (short turns have high diversity).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random

from envs.env import Done, Feedback, FeedbackAsk, FormatError, JudgeAsk
from envs.registry import Profile
from envs.tasks.mirrorbench import lexical
from envs.tasks.mirrorbench.prompts import (
    CRITIC,
    GTEVAL,
    START,
    TURNS_JUDGE,
    Similarity,
    UserTurns,
    assistant_grounding,
    judged,
    user_grounding,
)
from envs.tasks.mirrorbench.rows import Conversation
from envs.tasks.quoting import copied_share, without_quotes
from envs.tasks.schema import data_of
from envs.tasks.talk import Line
from envs.tasks.verdicts import Advice
from envs.types import Message, Outcome, Row, Score, Seat

USER: Seat = "user"
ASSISTANT: Seat = "assistant"
SEATS = (USER, ASSISTANT)
PREFIX = re.compile(r"\A(?:user|human)\s*:\s*", re.IGNORECASE)
MAX_COPIED = 0.5
PLAIN_ADVICE = "Write more like this person would: mind length, tone and wording."


@dataclass(frozen=True)
class Chat:
    """The real conversation, and what was said in this one."""

    real: Conversation
    lines: tuple[Line, ...] = ()

    def said(self) -> list[tuple[str, str]]:
        """(role, text) pairs from the replayed opening on."""
        opening = [(turn.role.upper(), turn.content) for turn in self.real.given]
        return [*opening, *((line.seat.upper(), line.shown) for line in self.lines)]

    def texts(self, seat: Seat) -> list[str]:
        return [line.shown for line in self.lines if line.seat == seat]


class MirrorBenchEnv:
    """Rules of the chat under one scorer profile."""

    seats: tuple[Seat, ...] = SEATS

    def __init__(self, profile: Profile = "strict") -> None:
        self.profile = profile

    def start(self, row: Row, rng: Random) -> Chat:
        return Chat(data_of(Conversation, row))

    def turn(self, state: Chat) -> Sequence[Seat] | Done:
        position = len(state.real.given) + len(state.lines)
        return Done() if position >= len(state.real.turns) else (state.real.turns[position].role,)

    def view(self, state: Chat, seat: Seat) -> Sequence[Message]:
        grounding = (user_grounding if seat == USER else assistant_grounding)(state.real)
        view = [Message("system", grounding)]
        opening = [turn.content for turn in state.real.given]
        if seat == USER:
            view += [Message("user", text) for text in opening or [START]]
        else:
            view += [Message("assistant", text) for text in opening]
        for line in state.lines:
            view.append(Message("assistant", line.raw) if line.seat == seat else Message("user", line.shown))
        return view

    def hear(self, state: Chat, seat: Seat, text: str) -> Chat | FormatError:
        shown = PREFIX.sub("", text.strip()).strip() if seat == USER else text.strip()
        if not shown and self.profile == "strict":
            return FormatError("an empty turn")
        return replace(state, lines=(*state.lines, Line(seat, text, shown)))

    def score(self, state: Chat) -> Mapping[Seat, Outcome | JudgeAsk]:
        fields, parts = judged(state.real, state.said()), lexical_parts(state)
        if self.profile != "strict":
            return {USER: JudgeAsk(GTEVAL.id, fields, lambda v: _similar(v, parts))}
        if fault := copying(state):
            return {USER: Score(0.0, parts, explanation=fault)}
        return {USER: JudgeAsk(TURNS_JUDGE.id, fields, lambda v: _turns(v, parts))}

    def feedback(self, state: Chat, seat: Seat) -> Feedback | FeedbackAsk | None:
        if seat != USER:
            return None
        if fault := copying(state):
            return Feedback(f"Last time your messages were not your own: {fault}.", sees_gold=False)
        hidden = state.real.said_by("user")
        return FeedbackAsk(
            CRITIC.id, judged(state.real, state.said()), sees_gold=True, text=lambda v: _advice(v, hidden)
        )

    def privileged(self, row: Row, seat: Seat) -> str | None:
        """How the real user wrote."""
        said = "\n".join(f"- {text}" for text in data_of(Conversation, row).said_by("user"))
        return f"What this person really wrote, in order:\n{said}" if seat == USER else None


def copying(state: Chat) -> str | None:
    """What the user turns mostly repeat, if anything."""
    own = "\n".join(state.texts(USER))
    if copied_share(own, state.real.description) > MAX_COPIED:
        return "they repeat the description of what you want"
    if copied_share(own, "\n".join(text for role, text in state.said() if role == "ASSISTANT")) > MAX_COPIED:
        return "they repeat what the assistant said"
    return None


def lexical_parts(state: Chat) -> dict[str, float]:
    """MATTR, HD-D and Yule's K of the user turns, of this chat and of the real one, over lower-case words."""
    parts: dict[str, float] = {}
    for who, texts in (("proxy", state.texts(USER)), ("human", state.real.said_by("user"))):
        words = re.findall(r"\w+(?:['’]\w+)?", " ".join(texts).lower())
        if words:
            parts |= {f"{name} {who}": measure(words) for name, measure in MEASURES.items()}
    return parts


MEASURES = {"mattr": lexical.mattr, "hdd": lexical.hdd, "yules_k": lexical.yules_k}


def _similar(verdict: Similarity, parts: Mapping[str, float]) -> Score:
    return Score(verdict.score, parts, explanation=verdict.reasoning)


def _turns(verdict: UserTurns, parts: Mapping[str, float]) -> Score:
    scores = {name: float(getattr(verdict, name).score) for name in ("style", "realism", "context")}
    return Score(sum(scores.values()) / 30, {**parts, **scores})


def _advice(verdict: Advice, hidden: Sequence[str]) -> str:
    return without_quotes(verdict.feedback, hidden) or PLAIN_ADVICE
