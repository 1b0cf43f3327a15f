"""Short goal-driven talks between two people, as corpus rows in which the simulated human is the assistant. Pure.

Both people follow a simple plan: ask for the best option, give way step by step, take an offer that is at least as
good as what one would ask for next. Each talk gives one row for each person, grounded in that person's wishes.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any

from common.seeds import derive_rng
from envs.env import Done, FormatError
from envs.tasks.hitom.generator import Part
from envs.tasks.negotiate.env import NegotiateEnv, Talk
from envs.tasks.negotiate.scenes import SEATS, Scene, other, scene_row, scenes, topic_named
from envs.types import Seat

SOURCE = "soc_negotiate_generated"
_HELLO = ("Hi {you}.", "Hello {you}.", "Good to see you, {you}.")
_ASK = ("So, {ask}?", "I would say, {ask}?", "Tell me, {ask}?")
_REFUSE = ("That is not so good for me.", "I would rather not.", "Hmm, that is hard for me.")
_GIVE_WAY = ("Let me think.", "All right, something else.", "I can give way a little.")
_ACCEPT = ("Fine, let us do that.", "Good, I agree.", "All right, you win.")


def dialogues(part: Part, count: int, seed: int) -> Iterator[dict[str, Any]]:
    """Two corpus rows for each of `count` scenes."""
    env = NegotiateEnv()
    for number, scene in enumerate(scenes(part, count, seed)):
        talk = scripted_talk(scene, derive_rng(seed, "negotiate-talk", part, number))
        for seat in SEATS:
            yield {
                "data_source": SOURCE,
                "id": f"{scene.content_hash}-{number}-{seat}",
                "messages": [{"role": m.role, "content": m.content} for m in _ending_with_own_words(env, talk, seat)],
                "extra_info": {"part": part, "topic": scene.topic, "agreed": talk.agreed},
            }


def scripted_talk(scene: Scene, rng: Random) -> Talk:
    """A whole talk between two people with the plan above."""
    env = NegotiateEnv()
    state = env.start(scene_row(scene, 0), rng)
    while not isinstance(seats := env.turn(state), Done):
        heard = env.hear(state, seats[0], speech(state, seats[0], rng))
        if isinstance(heard, FormatError):
            raise AssertionError(heard.detail)
        state = heard
    return state


def speech(state: Talk, seat: Seat, rng: Random) -> str:
    """What a person with the plan says next."""
    scene = state.scene
    ranked = sorted(scene.options, key=lambda option: -scene.worth(seat, option))
    asked = sum(who == seat for who, _ in state.speeches)
    wanted = ranked[min(asked, len(ranked) - 1)]
    opening = rng.choice(_HELLO).format(you=scene.name(other(seat))) + " " if asked == 0 else ""
    if state.offer and state.offer[0] != seat:
        if scene.worth(seat, state.offer[1]) >= scene.worth(seat, wanted):
            return f"{opening}{rng.choice(_ACCEPT)} <accept/>"
        opening += f"{rng.choice(_REFUSE)} "
    elif asked:
        opening += f"{rng.choice(_GIVE_WAY)} "
    ask = rng.choice(_ASK).format(ask=topic_named(scene.topic).ask.format(option=wanted))
    return f"{opening}{ask} <offer>{wanted}</offer>"


def _ending_with_own_words(env: NegotiateEnv, talk: Talk, seat: Seat) -> list[Any]:
    view = list(env.view(talk, seat))
    while view[-1].role != "assistant":
        view.pop()
    return view
