"""Seeded stories of ParaToMi's form, in our own words, with answers that are true by construction. Pure.

Two people see a thing in a container; one may leave, the other may move it, some come back to the room or turn up
elsewhere. What anybody believes comes from the Hi-ToM belief tracker (`envs.tasks.hitom.world`), the sentences from
several phrasings for each event. Every story is asked about reality, its beginning, and what each person believes
that it or the other believes. Which part a story belongs to is a function of its events alone, whatever the phrasing:
train and held-out parts share no story.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Literal

from common.errors import DataError
from common.files import hash_json
from common.seeds import derive_rng
from envs.tasks.hitom.words import NAMES, PLAIN_CONTAINERS, ROOMS, THINGS
from envs.tasks.hitom.world import Aside, Chain, Enter, Event, Exit, Move, Place, Story, believes
from envs.types import Row

Part = Literal["train", "heldout"]
HELDOUT_SHARE = 8
ATTEMPTS_PER_STORY = 200
QUESTIONS_PER_STORY = 6

ENTER = ("{who} came into the {room}.", "{who} walked into the {room}.", "{who} stepped inside the {room}.",
         "{who} turned up in the {room}.", "Now {who} is in the {room}.")  # fmt: skip
EXIT = ("{who} left the {room}.", "{who} went out of the {room}.", "{who} slipped away from the {room}.",
        "Then {who} was gone from the {room}.")  # fmt: skip
PLACE = ("The {thing} is in the {container}.", "The {container} holds the {thing}.",
         "Somebody has put the {thing} into the {container}.", "Inside the {container} there is the {thing}.",
         )  # fmt: skip
STANDS = ("The {container} stands in the {room}.", "One finds the {container} in the {room}.",
          "The {room} is where the {container} is kept.")  # fmt: skip
MOVE = ("{who} moved the {thing} to the {container}.", "{who} put the {thing} into the {container}.",
        "{who} took the {thing} and left it in the {container}.",
        "{who} carried the {thing} over to the {container}.")  # fmt: skip
OPINION = ("{who} likes the {other}.", "{who} cannot stand the {other}.", "{who} dreams of the {other}.")
FIRST = ("Where will {a} look for the {thing}?", "Where does {a} think the {thing} is?")
SECOND = (
    "Where does {a} think that {b} looks for the {thing}?",
    "Where does {a} believe {b} will search for the {thing}?",
)
REALITY = ("Where is the {thing} really?", "Where is the {thing} now?")
MEMORY = ("Where was the {thing} at the beginning?", "Where was the {thing} first?")


@dataclass(frozen=True)
class Plot:
    """One story: its events for the belief tracker, and who does what."""

    mover: str
    other: str
    thing: str
    room: str
    containers: tuple[str, str]
    story: Story
    elsewhere: tuple[tuple[int, str, str], ...]
    """(event number, who, room): turning up in a room where nothing happens; the event itself is an Aside."""

    @property
    def sha(self) -> str:
        """Of what happens; phrasings and distractors do not count."""
        told = [repr(event) for event in self.story.events if not isinstance(event, Aside)]
        return hash_json([told, [[who, room] for _, who, room in self.elsewhere]])

    @property
    def part(self) -> Part:
        return "heldout" if int(self.sha[:8], 16) % HELDOUT_SHARE == 0 else "train"


def generated_rows(task: str, part: Part, stories: int, seed: int) -> Iterator[Row]:
    """All questions of `stories` different stories of one part. Raises DataError when no more can be found."""
    seen: set[str] = set()
    for number in range(stories):
        for attempt in range(ATTEMPTS_PER_STORY):
            rng = derive_rng(seed, "paratomi", part, number, attempt)
            plot = make_plot(rng)
            if plot.part == part and plot.sha not in seen:
                seen.add(plot.sha)
                yield from _rows(task, plot, rng)
                break
        else:
            raise DataError(f"no new story after {ATTEMPTS_PER_STORY} attempts", where="paratomi generator")


def make_plot(rng: Random) -> Plot:
    """One story, of either part."""
    mover, other, third = rng.sample(NAMES, 3)
    room, elsewhere = rng.sample(ROOMS, 2)
    here, there = rng.sample(PLAIN_CONTAINERS, 2)
    thing, liked = rng.sample(THINGS, 2)
    events: list[Event] = [Enter((who,), room) for who in rng.sample((mover, other), 2)]
    events.append(Place(thing, here))
    away: list[tuple[int, str, str]] = []

    def leave(who: str) -> None:
        events.append(Exit(who, room))

    def turn_up(who: str) -> None:
        away.append((len(events), who, elsewhere))
        events.append(Aside(""))

    sees_move = rng.random() < 0.5
    if not sees_move:
        leave(other)
    moved = rng.random() < 0.9
    if moved:
        events.append(Move(mover, thing, there))
    if sees_move and rng.random() < 0.5:
        leave(other)
    if rng.random() < 0.5:
        leave(mover)
    if Exit(other, room) in events and rng.random() < 0.6:
        if rng.random() < 0.6:
            events.append(Enter((other,), room))
        else:
            turn_up(other)
    if rng.random() < 0.3:
        turn_up(third)
    if rng.random() < 0.4:
        events.append(Aside(rng.choice(OPINION).format(who=rng.choice((mover, other, third)), other=liked)))
    return Plot(mover, other, thing, room, (here, there), Story(tuple(events)), tuple(away))


def told(plot: Plot, rng: Random) -> str:
    """The story in words, a sentence a line; where each container stands is told when it first matters."""
    elsewhere = {number: (who, room) for number, who, room in plot.elsewhere}
    lines = []
    for number, event in enumerate(plot.story.events):
        match event:
            case Enter((who,), room):
                lines.append(rng.choice(ENTER).format(who=who, room=room))
            case Exit(who, room):
                lines.append(rng.choice(EXIT).format(who=who, room=room))
            case Place(thing, container):
                lines.append(rng.choice(PLACE).format(thing=thing, container=container))
                lines.append(rng.choice(STANDS).format(container=container, room=plot.room))
            case Move(who, thing, container):
                lines.append(rng.choice(MOVE).format(who=who, thing=thing, container=container))
                lines.append(rng.choice(STANDS).format(container=container, room=plot.room))
            case Aside(text):
                who, room = elsewhere.get(number, ("", ""))
                lines.append(text or rng.choice(ENTER).format(who=who, room=room))
    return "\n".join(lines)


def questions(plot: Plot) -> list[tuple[str, Chain, str]]:
    """(type, chain, answer): the authors' types, where "tom" says that the belief is not what is true."""
    real = believes(plot.story, (), plot.thing)
    asked: list[tuple[str, Chain, str]] = [("reality", (), str(real)), ("memory", (), plot.containers[0])]
    first, second = plot.story.agents[:2]
    for index, (a, b) in enumerate(((first, second), (second, first))):
        for order, chain in (("first", (a,)), ("second", (a, b))):
            answer = believes(plot.story, chain, plot.thing)
            kind = "no_tom" if answer == real else "tom"
            asked.append((f"{order}_order_{index}_{kind}", chain, str(answer)))
    return asked


def _rows(task: str, plot: Plot, rng: Random) -> Iterator[Row]:
    story = told(plot, rng)
    for kind, chain, answer in questions(plot):
        forms = MEMORY if kind == "memory" else (REALITY, FIRST, SECOND)[len(chain)]
        names = dict(zip("ab", chain, strict=False))
        text = rng.choice(forms).format(thing=plot.thing, **names)
        data = {"story": story, "question": text, "answer": answer, "choices": sorted(plot.containers), "type": kind}
        yield Row(task, f"{plot.sha[:12]}-{kind}", plot.sha, data)
