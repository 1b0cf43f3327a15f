"""A scene played by its characters, one seat each; a narrator and a director are partners. Pure.

After each message the director names the next speaker; a reply that names nobody who may speak is replaced by a draw
from the row's own seed. Ten messages at most; the director may end the scene from the fifth on. Thoughts reach no
other seat and no judge. Profiles:
* strict (reward): four ratings 1 to 10, on [0, 1]; the judge sees at most 120 words of a message, and messages earn
  nothing by their number; an empty turn is a format error; a character who only ever thought gets 0;
* soul (OdysSim): the same ratings on 0 to 100, rounded, without these limits;
* author: flaws with severities per dimension, and the authors' formula.
All characters of an episode share the scene's verdict; seats without a character have it too and sample nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random

from envs.env import Done, FeedbackAsk, FormatError, JudgeAsk, JudgePanel
from envs.registry import Profile
from envs.tasks.coser.author import dimension_score
from envs.tasks.coser.prompts import (
    CRITIC,
    DIMENSIONS,
    END_CHAT,
    FLAW_JUDGES,
    JUDGE,
    START,
    Flaws,
    Four,
    character_grounding,
    director_grounding,
    judged,
    narrator_grounding,
)
from envs.tasks.coser.rows import CHARACTERS, DIRECTOR, ENVIRONMENT, NARRATOR, Scene
from envs.tasks.coser.speech import first_words, public
from envs.tasks.quoting import without_quotes
from envs.tasks.schema import data_of
from envs.tasks.talk import Line, transcript
from envs.types import Message, Outcome, Row, Score, Seat

MAX_ROUNDS = 10
END_FROM = 5
JUDGED_WORDS = 120
SILENT = "(says nothing)"
SEATS = (*CHARACTERS, NARRATOR, DIRECTOR)


@dataclass(frozen=True)
class Part:
    """A message in the scene: who spoke, and the line (the director's have no name)."""

    name: str
    line: Line


@dataclass(frozen=True)
class Stage:
    """The scene so far. `following`: who speaks next; None while the director decides."""

    scene: Scene
    seed: int
    following: str | None
    parts: tuple[Part, ...] = ()
    ended: bool = False

    @property
    def spoken(self) -> list[Part]:
        """Messages of characters and narrator, given ones included."""
        return [part for part in self.parts if part.name]

    def text(self, most_words: int | None = None) -> str:
        """For a judge."""
        lines = [
            (p.name, p.line.shown if most_words is None else first_words(p.line.shown, most_words))
            for p in self.spoken
        ]
        return transcript(lines)

    def silent(self, seat: Seat) -> bool:
        """The seat had turns and said and did nothing in any of them."""
        own = [p.line.shown for p in self.spoken[self.scene.given :] if p.line.seat == seat]
        return bool(own) and all(shown == SILENT for shown in own)


class CoserEnv:
    """Rules of the scene under one scorer profile."""

    seats: tuple[Seat, ...] = SEATS

    def __init__(self, profile: Profile = "strict") -> None:
        self.profile = profile

    def start(self, row: Row, rng: Random) -> Stage:
        scene = data_of(Scene, row)
        stage = Stage(scene, rng.getrandbits(48), scene.first)
        for told in scene.reference[: scene.given]:
            seat = scene.seat_of(told.character)
            stage = _told(stage, seat, told.character, told.message)
        return stage

    def turn(self, state: Stage) -> Sequence[Seat] | Done:
        if state.ended:
            return Done("the director ended the scene")
        if len(state.spoken) - state.scene.given >= MAX_ROUNDS:
            return Done("turn limit")
        return (DIRECTOR,) if state.following is None else (state.scene.seat_of(state.following),)

    def view(self, state: Stage, seat: Seat) -> Sequence[Message]:
        scene, figure = state.scene, state.scene.figure_in(seat)
        if figure is not None:
            grounding = character_grounding(scene, figure)
        elif seat in (NARRATOR, DIRECTOR):
            grounding = (narrator_grounding if seat == NARRATOR else director_grounding)(scene)
        else:
            return []
        view = [Message("system", grounding), Message("user", START)]
        for part in state.parts:
            if part.line.seat == seat:
                view.append(Message("assistant", part.line.raw))
            elif part.name:
                view.append(Message("user", f"{part.name}: {part.line.shown}"))
        return view

    def hear(self, state: Stage, seat: Seat, text: str) -> Stage | FormatError:
        if seat == DIRECTOR:
            return _directed(state, text)
        if not text.strip() and self.profile == "strict":
            return FormatError("an empty turn")
        name = state.following or ENVIRONMENT
        return replace(_told(state, seat, name, text), following=None)

    def score(self, state: Stage) -> Mapping[Seat, Outcome | JudgeAsk | JudgePanel]:
        ask = self._ask(state)
        silent = Score(0.0, explanation="said and did nothing")
        strict = self.profile == "strict"
        return {seat: silent if strict and state.silent(seat) else ask for seat in CHARACTERS}

    def feedback(self, state: Stage, seat: Seat) -> FeedbackAsk | None:
        """A critic who knows the original; what it quotes is cut."""
        figure = state.scene.figure_in(seat)
        if figure is None or not any(part.line.seat == seat for part in state.spoken):
            return None
        original = [d.message for d in state.scene.reference]
        fields = {**judged(state.scene, state.text(JUDGED_WORDS)), "name": figure.name}
        plain = f"Act more as {figure.name} would, by the profile and by what moves {figure.name}."
        return FeedbackAsk(
            CRITIC.id, fields, sees_gold=True, text=lambda v: without_quotes(v.feedback, original) or plain
        )

    def privileged(self, row: Row, seat: Seat) -> str | None:
        """The original dialogue, without thoughts."""
        scene = data_of(Scene, row)
        if scene.figure_in(seat) is None or not scene.reference:
            return None
        return f"The scene as it stands in the book:\n{judged(scene, '')['reference']}"

    def _ask(self, state: Stage) -> JudgeAsk | JudgePanel:
        if self.profile == "author":
            fields = judged(state.scene, state.text())
            messages = sum(part.name != ENVIRONMENT for part in state.spoken)
            questions = tuple((spec.id, fields) for spec in FLAW_JUDGES)
            return JudgePanel(questions, lambda verdicts: author_score(verdicts, messages))
        if self.profile == "soul":
            return JudgeAsk(JUDGE.id, judged(state.scene, state.text()), soul_score)
        return JudgeAsk(JUDGE.id, judged(state.scene, state.text(JUDGED_WORDS)), strict_score)


def strict_score(verdict: Four) -> Score:
    """Mean of (rating - 1) / 9."""
    ratings = _ratings(verdict)
    return Score(sum((r - 1) / 9 for r in ratings.values()) / len(ratings), ratings)


def soul_score(verdict: Four) -> Score:
    """OdysSim: ratings on 0 to 100, rounded to one decimal, mean, divided by 100."""
    ratings = _ratings(verdict)
    return Score(sum(round((r - 1) * 100 / 9, 1) for r in ratings.values()) / len(ratings) / 100, ratings)


def author_score(verdicts: Sequence[Flaws], messages: int) -> Score:
    """Mean of the authors' four dimension scores, divided by 100."""
    scores = {
        name: dimension_score([flaw.severity for flaw in verdict.flaws], messages)
        for name, verdict in zip(DIMENSIONS, verdicts, strict=True)
    }
    return Score(sum(scores.values()) / len(scores) / 100, scores)


def _ratings(verdict: Four) -> dict[str, float]:
    return {name: float(getattr(verdict, name).score) for name in DIMENSIONS}


def _told(state: Stage, seat: Seat, name: str, text: str) -> Stage:
    own = text.strip().removeprefix(f"{ENVIRONMENT}:").strip() if seat == NARRATOR else public(text, name)
    return replace(state, parts=(*state.parts, Part(name, Line(seat, text, own or SILENT))))


def _directed(state: Stage, text: str) -> Stage:
    """Who comes next, by the director or, where the reply names nobody who may speak, by the row's own draw."""
    rounds = len(state.spoken) - state.scene.given
    heard = replace(state, parts=(*state.parts, Part("", Line(DIRECTOR, text, ""))))
    if END_CHAT.casefold() in text.casefold() and rounds >= END_FROM:
        return replace(heard, ended=True)
    last = state.spoken[-1].name
    allowed = [name for name in (*state.scene.names, ENVIRONMENT) if name != last]
    said = text.strip().strip(".\"'*").casefold()
    named = [name for name in allowed if name.casefold() == said] or [
        name for name in allowed if name.casefold() in said
    ]
    if len(named) == 1:
        return replace(heard, following=named[0])
    main = [name for name in (*state.scene.major, ENVIRONMENT) if name != last] or allowed
    return replace(heard, following=Random(f"{state.seed}:{len(state.parts)}").choice(main))
