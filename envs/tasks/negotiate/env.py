"""Two people with private wishes agree on one of a few options. Pure; both seats can learn at once.

They speak in turns. A turn is free text with at most one of: `<offer>option</offer>`, `<accept/>` (the other's last
offer), `<leave/>`. An agreed option gives each seat its own private points, as a share of the maximum; no agreement
gives 0. Everything is checked by rule: the deal is what was marked, not what was said about it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random

from envs.env import Done, Feedback, FormatError
from envs.tasks.negotiate.scenes import MAX_POINTS, OPENER, SEATS, Scene, other, read_scene, topic_named
from envs.types import Message, Outcome, Row, Score, Seat

MAX_SPEECHES = 8
START = "(The talk begins.)"
_OFFER = re.compile(r"<offer>(.*?)</offer>", re.DOTALL)
_ACCEPT = re.compile(r"<accept\s*/?>")
_LEAVE = re.compile(r"<leave\s*/?>")


@dataclass(frozen=True)
class Talk:
    """What was said so far, the offer on the table and the agreement, if any."""

    scene: Scene
    speeches: tuple[tuple[Seat, str], ...] = ()
    offer: tuple[Seat, str] | None = None
    agreed: str | None = None
    left: bool = False


class NegotiateEnv:
    """Rules of the talk."""

    seats: tuple[Seat, ...] = SEATS

    def start(self, row: Row, rng: Random) -> Talk:
        """Nobody has spoken. Raises DataError on a malformed row."""
        return Talk(read_scene(row))

    def turn(self, state: Talk) -> Sequence[Seat] | Done:
        """The opener first, then in turns."""
        if state.agreed is not None:
            return Done("agreed")
        if state.left or len(state.speeches) >= MAX_SPEECHES:
            return Done("no agreement")
        return (SEATS[len(state.speeches) % 2],)

    def view(self, state: Talk, seat: Seat) -> Sequence[Message]:
        """Own situation and wishes, then the talk: the other's words as user, one's own as assistant."""
        view = [Message("system", grounding(state.scene, seat))]
        if seat == OPENER:
            view.append(Message("user", START))
        view += [Message("assistant" if who == seat else "user", text) for who, text in state.speeches]
        return view

    def hear(self, state: Talk, seat: Seat, text: str) -> Talk | FormatError:
        """Apply the one act that a speech may hold."""
        offers, accepts, leaves = _OFFER.findall(text), _ACCEPT.findall(text), _LEAVE.findall(text)
        if len(offers) + len(accepts) + len(leaves) > 1:
            return FormatError("more than one of offer, accept and leave in one turn")
        state = replace(state, speeches=(*state.speeches, (seat, text)))
        if leaves:
            return replace(state, left=True)
        if accepts:
            if state.offer is None or state.offer[0] == seat:
                return FormatError("accepted although the other has made no offer")
            return replace(state, agreed=state.offer[1])
        if offers:
            option = offers[0].strip()
            if option not in state.scene.options:
                return FormatError(f"offered {option!r:.60}, which is not one of the options")
            return replace(state, offer=(seat, option))
        return state

    def score(self, state: Talk) -> Mapping[Seat, Outcome]:
        """Each seat's own points; the joint share of what was possible is a part."""
        agreed = state.agreed
        if agreed is None:
            return {seat: Score(0.0, {"agreed": 0.0, "joint": 0.0}, explanation="no agreement") for seat in SEATS}
        worth = {seat: state.scene.worth(seat, agreed) for seat in SEATS}
        parts = {"agreed": 1.0, "joint": sum(worth.values()) / state.scene.best_joint}
        return {seat: Score(worth[seat] / MAX_POINTS, parts, explanation=f"agreed on {agreed}") for seat in SEATS}

    def feedback(self, state: Talk, seat: Seat) -> Feedback | None:
        """What this seat could have done better, without telling the other's wishes."""
        scene, agreed = state.scene, state.agreed
        best = max(scene.options, key=lambda option: scene.worth(seat, option))
        if agreed is None:
            return Feedback(
                "You left without an agreement, which is worth nothing. Give way in time.", sees_gold=False
            )
        mine, theirs = scene.worth(seat, agreed), scene.worth(other(seat), agreed)
        if any(scene.worth(seat, o) > mine and scene.worth(other(seat), o) >= theirs for o in scene.options):
            return Feedback(f"You agreed on {agreed}, but both of you could have had more.", sees_gold=True)
        if mine == scene.worth(seat, best):
            return None
        if not any(who == seat and f"<offer>{best}</offer>" in text for who, text in state.speeches):
            return Feedback(
                f"You agreed on {agreed} and never asked for {best}, which you like best.", sees_gold=False
            )
        return None

    def privileged(self, row: Row, seat: Seat) -> str | None:
        """The other's wishes."""
        scene = read_scene(row)
        return f"The wishes of {scene.name(other(seat))}: {wishes(scene, other(seat))}."


def grounding(scene: Scene, seat: Seat) -> str:
    """The social grounding of one seat: who speaks, to whom, the situation, the goal."""
    topic = topic_named(scene.topic)
    return (
        f"You are {scene.name(seat)}. You talk to {scene.name(other(seat))}, {scene.tie}. {topic.situation} "
        f"The options: {', '.join(scene.options)}. What they are worth to you: {wishes(scene, seat)}. "
        "Your goal is an agreement that is good for you. Propose with <offer>option</offer>, agree with <accept/>."
    )


def wishes(scene: Scene, seat: Seat) -> str:
    """A seat's points in words; only this seat may see them."""
    return ", ".join(f"{option} {points}" for option, points in zip(scene.options, scene.points[seat], strict=True))
