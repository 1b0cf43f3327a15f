"""The conversation: two people in turns, at most 15, each with a private goal; a judge scores. Pure.

Leaving ends it at once, as in the authors' environment; more than two idle turns in a row end it too. Profiles:
* strict (reward): scores on their own ranges, in [0, 1]; a person who did nothing, or left before both had spoken
  twice, gets 0 without asking a judge; a partner that leaves so early makes the episode Unscored(partner_failed);
* soul (OdysSim): 0.1 times the mean of the raw scores (what is below 0 is reported by `aggregate` only);
* author: the mean of the raw scores, moved to [0, 1].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random

from envs.env import Done, Feedback, FeedbackAsk, FormatError, JudgeAsk
from envs.registry import Profile
from envs.tasks.schema import data_of
from envs.tasks.sotopia import dimensions
from envs.tasks.sotopia.actions import Action, read_action
from envs.tasks.sotopia.prompts import COACH, FORMAT, JUDGE, START, Seven, coach_fields, grounding, judge_fields
from envs.tasks.sotopia.rows import ACTOR, SEATS, Scene
from envs.tasks.talk import Line, transcript
from envs.types import FailureReason, Message, Outcome, Row, Score, Seat, Unscored

MAX_TURNS = 15
MAX_IDLE = 2
EARLY = 4
"""Turns before which nobody may leave with a score."""


@dataclass(frozen=True)
class Talk:
    """What was done so far."""

    scene: Scene
    lines: tuple[Line, ...] = ()
    actions: tuple[Action, ...] = ()

    @property
    def left_by(self) -> Seat | None:
        """Who ended it by leaving."""
        return self.lines[-1].seat if self.actions and self.actions[-1].kind == "leave" else None

    def acted(self, seat: Seat) -> bool:
        return any(line.seat == seat and action.acts for line, action in zip(self.lines, self.actions, strict=True))

    def text(self) -> str:
        """For a judge."""
        shown = [(self.scene.names[self.scene.person(line.seat)], line.shown) for line in self.lines]
        return transcript(shown)


@dataclass(frozen=True)
class SotopiaEnv:
    """Rules of the conversation. `scored`: the seats that the policy plays."""

    profile: Profile = "strict"
    scored: tuple[Seat, ...] = (ACTOR,)
    seats: tuple[Seat, ...] = SEATS

    def start(self, row: Row, rng: Random) -> Talk:
        return Talk(data_of(Scene, row))

    def turn(self, state: Talk) -> Sequence[Seat] | Done:
        if state.left_by is not None:
            return Done("left")
        last = state.actions[-MAX_IDLE - 1 :]
        if len(last) > MAX_IDLE and all(action.kind == "none" for action in last):
            return Done("nothing happens any more")
        if len(state.lines) >= MAX_TURNS:
            return Done("turn limit")
        return (state.scene.seat(len(state.lines) % 2),)

    def view(self, state: Talk, seat: Seat) -> Sequence[Message]:
        view = [Message("system", grounding(state.scene, seat))]
        if state.scene.person(seat) == 0:
            view.append(Message("user", START))
        for line in state.lines:
            view.append(Message("assistant", line.raw) if line.seat == seat else Message("user", line.shown))
        return view

    def hear(self, state: Talk, seat: Seat, text: str) -> Talk | FormatError:
        action = read_action(text, lenient=self.profile == "soul")
        if isinstance(action, FormatError):
            return action
        line = Line(seat, text, action.shown(state.scene.names[state.scene.person(seat)]))
        return replace(state, lines=(*state.lines, line), actions=(*state.actions, action))

    def score(self, state: Talk) -> Mapping[Seat, Outcome | JudgeAsk]:
        return {seat: self._ruled(state, seat) or self._ask(state, seat) for seat in self.scored}

    def feedback(self, state: Talk, seat: Seat) -> Feedback | FeedbackAsk | None:
        ruled = self._ruled(state, seat)
        if isinstance(ruled, Score):
            return Feedback(f"Last time: {ruled.explanation}. Take part until your goal is settled. {FORMAT}", False)
        if ruled is not None:
            return None
        return FeedbackAsk(COACH.id, coach_fields(state.scene, seat, state.text()))

    def privileged(self, row: Row, seat: Seat) -> str | None:
        """The other's goal."""
        scene = data_of(Scene, row)
        other = 1 - scene.person(seat)
        return f"The private goal of {scene.names[other]}: {scene.goals[other]}"

    def _ruled(self, state: Talk, seat: Seat) -> Outcome | None:
        """What needs no judge."""
        if self.profile != "strict":
            return None
        if not state.acted(seat):
            return Score(0.0, explanation="you said and did nothing")
        if state.left_by is None or len(state.lines) > EARLY:
            return None
        if state.left_by == seat or state.left_by in self.scored:
            return Score(0.0, explanation="the conversation was left before anything could happen")
        return Unscored(FailureReason.PARTNER_FAILED, f"the partner left in turn {len(state.lines)}")

    def _ask(self, state: Talk, seat: Seat) -> JudgeAsk:
        fields = judge_fields(state.scene, seat, state.text())
        return JudgeAsk(JUDGE.id, fields, lambda verdict: score_of(verdict, self.profile))


def score_of(verdict: Seven, profile: Profile) -> Score:
    """A judge's scores as one number, with all of them as parts."""
    scores = verdict.scores()
    value = {
        "strict": dimensions.strict_score,
        "soul": lambda s: max(0.0, dimensions.soul_score(s)),
        "author": dimensions.author_unit,
    }[profile](scores)
    return Score(value, {**scores, "overall": dimensions.author_overall(scores)})
