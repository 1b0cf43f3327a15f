"""Story events as the benchmark's English sentences, and back. Pure; the two directions are inverse to each other.

A sentence that matches no pattern is an `Aside`: it says nothing about where an object is.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from envs.tasks.hitom.world import Aside, Chain, Enter, Event, Exit, Move, Place, Stay, Story, Tell

_NAME = r"[A-Z]\w*"
_ENTER = re.compile(rf"(?P<agents>{_NAME}(?:(?:, | and ){_NAME})*) entered the (?P<room>\w+)\.")
_PLACE = re.compile(r"The (?P<thing>\w+) is in the (?P<container>\w+)\.")
_MOVE = re.compile(rf"(?P<agent>{_NAME}) moved the (?P<thing>\w+) to the (?P<container>\w+)\.")
_STAY = re.compile(rf"(?P<agent>{_NAME}) made no movements and stayed in the (?P<room>\w+) for 1 minute\.")
_EXIT = re.compile(rf"(?P<agent>{_NAME}) exited the (?P<room>\w+)\.")
_CLAIM = re.compile(
    rf"(?P<speaker>{_NAME}) publicly claimed that (?:the )?(?P<thing>\w+) is in the (?P<container>\w+)(?: now)?\."
)
_WHISPER = re.compile(
    rf"(?P<speaker>{_NAME}) privately told (?P<listener>{_NAME}) "
    r"that (?:the )?(?P<thing>\w+) is in the (?P<container>\w+)(?: now)?\."
)
_LINE = re.compile(r"\s*(?:\d+ )?(?P<sentence>.+?)\s*")
_REALITY = re.compile(r"Where is the (?P<thing>\w+) really\?")
_BELIEF = re.compile(rf"Where does (?P<chain>{_NAME}(?: (?:really )?thinks? {_NAME})*) (?:really )?thinks? ")
_THING = re.compile(r"the (?P<thing>\w+) is\?")


def sentence(event: Event) -> str:
    """One event in English."""
    match event:
        case Enter(agents, room):
            return f"{_listing(agents)} entered the {room}."
        case Place(thing, container):
            return f"The {thing} is in the {container}."
        case Move(agent, thing, container):
            return f"{agent} moved the {thing} to the {container}."
        case Stay(agent, room):
            return f"{agent} made no movements and stayed in the {room} for 1 minute."
        case Exit(agent, room):
            return f"{agent} exited the {room}."
        case Tell(speaker, None, thing, container):
            return f"{speaker} publicly claimed that {thing} is in the {container}."
        case Tell(speaker, listener, thing, container):
            return f"{speaker} privately told {listener} that the {thing} is in the {container}."
        case Aside(text):
            return text


def render(story: Story, *, numbered: bool = True) -> str:
    """The story, one sentence a line, numbered from 1 as in the benchmark."""
    lines = [sentence(event) for event in story.events]
    return "\n".join(f"{i} {line}" if numbered else line for i, line in enumerate(lines, 1))


def parse(text: str) -> Story:
    """The events of a story's text; event k is line k+1. Text around the numbered lines is ignored."""
    lines = [m["sentence"] for line in text.splitlines() if (m := _LINE.fullmatch(line))]
    if any(line[0].isdigit() for line in text.splitlines() if line):
        lines = [m["sentence"] for line in text.splitlines() if line[:1].isdigit() and (m := _LINE.fullmatch(line))]
    return Story(tuple(_event(line) for line in lines))


def question(chain: Chain, thing: str) -> str:
    """The benchmark's question about one nested belief."""
    if not chain:
        return f"Where is the {thing} really?"
    if len(chain) == 1:
        return f"Where does {chain[0]} really think the {thing} is?"
    others = " thinks ".join(chain[1:])
    return f"Where does {chain[0]} think {others} thinks the {thing} is?"


def parse_question(text: str) -> tuple[Chain, str] | None:
    """(chain, thing) of a question, or None when it is not one of the benchmark's form."""
    text = text.strip()
    if m := _REALITY.fullmatch(text):
        return (), m["thing"]
    chain, thing = _BELIEF.match(text), _THING.search(text)
    if not chain or not thing:
        return None
    return tuple(re.split(r" (?:really )?thinks? ", chain["chain"])), thing["thing"]


def _listing(agents: Sequence[str]) -> str:
    return agents[0] if len(agents) == 1 else f"{', '.join(agents[:-1])} and {agents[-1]}"


def _event(line: str) -> Event:
    if m := _ENTER.fullmatch(line):
        return Enter(tuple(re.split(r", | and ", m["agents"])), m["room"])
    if m := _PLACE.fullmatch(line):
        return Place(m["thing"], m["container"])
    if m := _MOVE.fullmatch(line):
        return Move(m["agent"], m["thing"], m["container"])
    if m := _STAY.fullmatch(line):
        return Stay(m["agent"], m["room"])
    if m := _EXIT.fullmatch(line):
        return Exit(m["agent"], m["room"])
    if m := _CLAIM.fullmatch(line):
        return Tell(m["speaker"], None, m["thing"], m["container"])
    if m := _WHISPER.fullmatch(line):
        return Tell(m["speaker"], m["listener"], m["thing"], m["container"])
    return Aside(line)
