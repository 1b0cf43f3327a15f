"""What happens in a Hi-ToM story and what every chain of agents believes about it. Pure.

The rules (the note that the benchmark's authors give with each question; He et al. 2023, arXiv 2310.16755):
* an agent sees all that happens in its room until it leaves, and who enters a room sees where things in it are;
* a chain "a1 thinks a2 thinks … an thinks" follows only what all of a1…an saw together;
* a claim never changes what its speaker believes; a listener trusts a speaker who left the room later than the
  listener did, or who was there when the listener was not; everybody knows the order of leaving;
* a private message is known to its two parties only, a public claim to everybody.

The authors' generator applies claims to orders 1 and 2 only and lets every speaker think that it is believed, which
contradicts the last two rules. `rules="authors"` reproduces their labels, `rules="stated"` follows the rules.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Rules = Literal["stated", "authors"]
Chain = tuple[str, ...]
"""(a1, …, an): what a1 thinks that a2 thinks … that an thinks. () is reality, order 0."""

WAITING_ROOM = "waiting_room"
"""Nothing happens there: agents wait between chapters."""


@dataclass(frozen=True)
class Enter:
    """Agents enter a room together."""

    agents: tuple[str, ...]
    room: str


@dataclass(frozen=True)
class Place:
    """An object is in a container, in plain view of everybody in the room."""

    thing: str
    container: str


@dataclass(frozen=True)
class Move:
    """An agent moves an object."""

    agent: str
    thing: str
    container: str


@dataclass(frozen=True)
class Stay:
    """An agent does nothing."""

    agent: str
    room: str


@dataclass(frozen=True)
class Exit:
    """An agent leaves its room."""

    agent: str
    room: str


@dataclass(frozen=True)
class Tell:
    """A claim, true or not, to one listener or (listener None) to everybody."""

    speaker: str
    listener: str | None
    thing: str
    container: str


@dataclass(frozen=True)
class Aside:
    """A sentence that moves nothing: a distractor."""

    text: str


Event = Enter | Place | Move | Stay | Exit | Tell | Aside


@dataclass(frozen=True)
class Update:
    """The chain believes `container` from event number `index` (0-based) on."""

    index: int
    container: str


@dataclass(frozen=True)
class Scene:
    """Where everybody and everything is just after one event, and when (event number) each agent last left a room."""

    rooms: Mapping[str, str]
    left: Mapping[str, int]
    places: Mapping[str, tuple[str, str]]
    """Thing -> (room, container)."""
    room: str
    """The room of the current chapter."""

    def sees(self, agent: str) -> bool:
        """Whether the agent is where the story happens."""
        return self.rooms.get(agent) == self.room

    def trusts(self, listener: str, speaker: str) -> bool:
        """A speaker who left later knows more; who never was in a room knows least."""
        return self.left.get(speaker, -1) > self.left.get(listener, -1)


@dataclass(frozen=True)
class Story:
    """The events of one story, in order."""

    events: tuple[Event, ...]

    @property
    def agents(self) -> tuple[str, ...]:
        """Everybody who enters a room or speaks, in order of appearance."""
        seen: dict[str, None] = {}
        for event in self.events:
            if isinstance(event, Enter):
                seen |= dict.fromkeys(event.agents)
            elif isinstance(event, Tell):
                seen |= dict.fromkeys(a for a in (event.speaker, event.listener) if a)
        return tuple(seen)

    @property
    def things(self) -> tuple[str, ...]:
        """Every object, in order of appearance."""
        return tuple(dict.fromkeys(e.thing for e in self.events if isinstance(e, Place)))

    def scenes(self) -> Iterator[tuple[int, Event, Scene]]:
        """Each event with its number and the scene just after it."""
        rooms: dict[str, str] = {}
        left: dict[str, int] = {}
        places: dict[str, tuple[str, str]] = {}
        room = ""
        for index, event in enumerate(self.events):
            match event:
                case Enter(agents, entered):
                    rooms |= dict.fromkeys(agents, entered)
                    room = room if entered == WAITING_ROOM else entered
                case Place(thing, container) | Move(_, thing, container):
                    places[thing] = (room, container)
                case Exit(agent, _):
                    rooms.pop(agent, None)
                    left[agent] = index
            yield index, event, Scene(dict(rooms), dict(left), dict(places), room)


def trace(story: Story, chain: Sequence[str], thing: str, rules: Rules = "stated") -> list[Update]:
    """The history of one nested belief: every event that sets it, oldest first. Empty: the chain cannot know."""
    chain = merge_repeats(chain)
    updates: list[Update] = []
    for index, event, scene in story.scenes():
        container = _shown(event, scene, chain, thing) or _claimed(event, scene, chain, thing, rules)
        # Seeing again what one believes already is no update, unless an event says it in so many words.
        if container and not (isinstance(event, Enter) and updates and updates[-1].container == container):
            updates.append(Update(index, container))
    return updates


def believes(story: Story, chain: Sequence[str], thing: str, rules: Rules = "stated") -> str | None:
    """The container in which the chain believes the object, or None when it cannot know."""
    updates = trace(story, chain, thing, rules)
    return updates[-1].container if updates else None


def merge_repeats(chain: Sequence[str]) -> Chain:
    """What I think that I think is what I think."""
    return tuple(a for i, a in enumerate(chain) if i == 0 or a != chain[i - 1])


def _shown(event: Event, scene: Scene, chain: Chain, thing: str) -> str | None:
    """Where the event shows the thing to all of the chain at once."""
    if thing not in scene.places or not all(scene.sees(agent) for agent in chain):
        return None
    room, container = scene.places[thing]
    match event:
        case Place(shown, _) | Move(_, shown, _) if shown == thing:
            return container
        case Enter(agents, entered) if entered == room and not set(agents).isdisjoint(chain):
            return container
    return None


def _claimed(event: Event, scene: Scene, chain: Chain, thing: str, rules: Rules) -> str | None:
    """What a claim makes the chain believe about the thing."""
    if not isinstance(event, Tell) or event.thing != thing or not chain:
        return None
    if event.listener is not None and not set(chain) <= {event.speaker, event.listener}:
        return None
    *outer, last = chain
    if rules == "authors":
        if len(chain) > 2 or (outer and event.speaker not in chain):
            return None
        if outer == [event.speaker]:
            return event.container
    if last != event.speaker:
        return event.container if scene.trusts(last, event.speaker) else None
    # Who trusts the speaker also thinks that the speaker means it; the speaker's own belief does not change.
    return event.container if outer and scene.trusts(outer[-1], event.speaker) else None
