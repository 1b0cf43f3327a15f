"""Seeded Hi-ToM stories with questions whose answers are true by construction. Pure.

A story is one to three chapters: agents enter a room, see an object, leave one after the other (each may move the
object first) and meet in the waiting room, where some make claims. Which part a story belongs to is a function of
its events alone (distractors left out), so the train and held-out parts share no story, whatever the seeds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal

from pydantic import Field, model_validator

from common.config import Config
from common.errors import DataError
from common.files import hash_json
from common.seeds import derive_rng
from envs.tasks.hitom.sentences import sentence
from envs.tasks.hitom.words import ANIMALS, BELONGINGS, CONTAINERS, NAMES, PLAIN_CONTAINERS, ROOMS, THINGS
from envs.tasks.hitom.world import (
    WAITING_ROOM,
    Aside,
    Chain,
    Enter,
    Event,
    Exit,
    Move,
    Place,
    Rules,
    Stay,
    Story,
    Tell,
    believes,
)

Part = Literal["train", "heldout"]
HELDOUT_SHARE = 8
"""One story in this many belongs to the held-out part."""
MAX_ORDER = 4
ATTEMPTS_PER_STORY = 200


class Difficulty(Config):
    """What makes stories and questions hard. The defaults are the benchmark's own sizes."""

    agents: int = Field(default=5, ge=1, le=len(NAMES))
    """Agents in the first chapter; later chapters draw two or more of them."""
    chapters: int = Field(default=1, ge=1, le=3)
    move_probability: float = Field(default=0.5, ge=0, le=1)
    """Chance that an agent moves the object before it leaves."""
    tell_probability: float = Field(default=0.0, ge=0, le=1)
    """Chance of claims at the end of a chapter."""
    distractor_probability: float = Field(default=0.1, ge=0, le=1)
    """Chance of a sentence without meaning after each event."""
    orders: tuple[int, ...] = (0, 1, 2, 3, 4)
    choices: int = Field(default=15, ge=2, le=len(CONTAINERS))
    names: int = Field(default=len(NAMES), ge=1, le=len(NAMES))
    """How many names, things, containers and rooms of the word lists are used at all."""
    things: int = Field(default=len(THINGS), ge=1, le=len(THINGS))
    containers: int = Field(default=24, ge=2, le=len(CONTAINERS))
    rooms: int = Field(default=len(ROOMS), ge=1, le=len(ROOMS))
    plain_containers: bool = False
    """Containers of one word each instead of the benchmark's coloured ones."""
    waiting_room: bool = True
    """Whether a chapter ends with everybody in the waiting room (needed where they make claims)."""
    rules: Rules = "stated"

    @model_validator(mode="after")
    def _fits(self) -> Difficulty:
        if not self.orders or any(not 0 <= order <= MAX_ORDER for order in self.orders):
            raise ValueError(f"orders: one or more of 0 to {MAX_ORDER}")
        if self.agents < min(2, max(self.orders)):
            raise ValueError("agents: a question of order 2 or more needs two agents")
        if self.names < self.agents:
            raise ValueError("names: fewer than agents")
        if not self.agents < self.containers:
            raise ValueError("containers: must exceed agents, who may all move the object to a new one")
        if self.choices > self.containers:
            raise ValueError("choices: more than containers")
        if self.containers > len(self._container_list):
            raise ValueError(f"containers: there are {len(self._container_list)} of this kind")
        if self.tell_probability and not self.waiting_room:
            raise ValueError("waiting_room: claims are made there")
        if self.things < self.chapters:
            raise ValueError("things: fewer than chapters")
        return self

    @property
    def _container_list(self) -> tuple[str, ...]:
        return PLAIN_CONTAINERS if self.plain_containers else CONTAINERS

    @property
    def container_words(self) -> tuple[str, ...]:
        """The containers that stories and choices draw from."""
        return self._container_list[: self.containers]


@dataclass(frozen=True)
class Question:
    """One question about a story, with its true answer."""

    chain: Chain
    thing: str
    answer: str

    @property
    def order(self) -> int:
        return len(self.chain)


@dataclass(frozen=True)
class Problem:
    """A story, its questions and the containers to choose from (the same for all its questions)."""

    story: Story
    questions: tuple[Question, ...]
    choices: tuple[str, ...]
    chapters: int

    @property
    def story_hash(self) -> str:
        return hash_story(self.story)


def hash_story(story: Story) -> str:
    """Content hash of what happens; distractors do not count."""
    return hash_json([sentence(event) for event in story.events if not isinstance(event, Aside)])


def part_of(story: Story) -> Part:
    """The part a story belongs to, by its content alone."""
    return "heldout" if int(hash_story(story)[:8], 16) % HELDOUT_SHARE == 0 else "train"


def generate(part: Part, count: int, seed: int, difficulty: Difficulty | None = None) -> Iterator[Problem]:
    """`count` problems with different stories of one part. Raises DataError when the word lists allow no more."""
    difficulty = difficulty or Difficulty()
    seen: set[str] = set()
    for number in range(count):
        for attempt in range(ATTEMPTS_PER_STORY):
            rng = derive_rng(seed, "hitom", part, number, attempt)
            story = make_story(rng, difficulty)
            digest = hash_story(story)
            if part_of(story) == part and digest not in seen:
                seen.add(digest)
                yield make_problem(rng, story, difficulty)
                break
        else:
            raise DataError(
                f"no new story after {ATTEMPTS_PER_STORY} attempts: {number} of {count} made",
                where="hitom generator",
                fix="ask for fewer stories, or allow more names, containers or moves",
            )


def make_story(rng: Random, difficulty: Difficulty) -> Story:
    """One story, of either part."""
    agents = rng.sample(NAMES[: difficulty.names], difficulty.agents)
    things = rng.sample(THINGS[: difficulty.things], difficulty.chapters)
    containers = difficulty.container_words
    events: list[Event] = []
    for chapter in range(difficulty.chapters):
        cast = agents if chapter == 0 else rng.sample(agents, rng.randint(min(2, len(agents)), len(agents)))
        room = rng.choice(ROOMS[: difficulty.rooms])
        events += _chapter(rng, difficulty, cast, agents, room, things[chapter], containers)
    return Story(tuple(_with_asides(rng, difficulty, events, agents)))


def make_problem(rng: Random, story: Story, difficulty: Difficulty) -> Problem:
    """The questions about a story: one of each order, all about one object, on nested chains of agents."""
    wanted_cast = min(max(difficulty.orders), difficulty.agents)
    thing, cast = rng.choice([(t, c) for t in story.things if len(c := _cast_of(story, t)) >= wanted_cast])
    questions = []
    for order in sorted(set(difficulty.orders)):
        chain = _chain(rng, cast, order)
        answer = believes(story, chain, thing, difficulty.rules)
        if answer is not None:
            questions.append(Question(chain, thing, answer))
    mentioned = list(dict.fromkeys(e.container for e in story.events if isinstance(e, Place | Move | Tell)))
    others = [c for c in difficulty.container_words if c not in mentioned]
    wanted = {q.answer for q in questions}
    mentioned.sort(key=lambda container: container not in wanted)
    options = (mentioned + rng.sample(others, len(others)))[: max(difficulty.choices, len(wanted))]
    return Problem(story, tuple(questions), tuple(rng.sample(options, len(options))), difficulty.chapters)


def _cast_of(story: Story, thing: str) -> tuple[str, ...]:
    """The agents who saw the thing first, in the order in which they entered."""
    cast: tuple[str, ...] = ()
    for event in story.events:
        if isinstance(event, Enter):
            cast = event.agents
        elif isinstance(event, Place) and event.thing == thing:
            return cast
    return cast


def _chain(rng: Random, cast: Sequence[str], order: int) -> Chain:
    """`order` agents of the cast, no agent next to itself; all different where there are enough."""
    if order <= len(cast):
        return tuple(rng.sample(list(cast), order))
    chain: list[str] = []
    while len(chain) < order:
        chain.append(rng.choice([agent for agent in cast if not chain or agent != chain[-1]]))
    return tuple(chain)


def _chapter(
    rng: Random,
    difficulty: Difficulty,
    cast: Sequence[str],
    agents: Sequence[str],
    room: str,
    thing: str,
    containers: Sequence[str],
) -> list[Event]:
    """Enter, see, then one after the other move or stay, and leave."""
    places = rng.sample(list(containers), len(cast) + 1)
    events: list[Event] = [Enter(tuple(cast), room), Place(thing, places[0])]
    for agent, container in zip(cast, places[1:], strict=True):
        moves = rng.random() < difficulty.move_probability
        events.append(Move(agent, thing, container) if moves else Stay(agent, room))
        events.append(Exit(agent, room))
    if difficulty.waiting_room:
        events.append(Enter(tuple(cast), WAITING_ROOM))
    if len(agents) > 1 and rng.random() < difficulty.tell_probability:
        events += _claims(rng, cast, agents, thing, containers)
    return events


def _claims(
    rng: Random, cast: Sequence[str], agents: Sequence[str], thing: str, containers: Sequence[str]
) -> list[Event]:
    """A public claim, a private one, or first the one and then the other; true or not, no matter."""
    events: list[Event] = []
    kind = rng.randrange(3)
    if kind != 1:
        events.append(Tell(rng.choice(list(cast)), None, thing, rng.choice(list(containers))))
    if kind != 0:
        speaker = rng.choice(list(cast))
        listener = rng.choice([agent for agent in agents if agent != speaker])
        events.append(Tell(speaker, listener, thing, rng.choice(list(containers))))
    return events


def _with_asides(
    rng: Random, difficulty: Difficulty, events: Sequence[Event], agents: Sequence[str]
) -> Iterator[Event]:
    """The events with distractors between them."""
    for event in events:
        yield event
        if rng.random() < difficulty.distractor_probability:
            yield Aside(_aside(rng, difficulty, rng.choice(list(agents))))


def _aside(rng: Random, difficulty: Difficulty, agent: str) -> str:
    kinds = (
        f"{agent} saw a {rng.choice(ANIMALS)}.",
        f"{agent} lost a {rng.choice(BELONGINGS)}.",
        f"{agent} likes the {rng.choice(difficulty.container_words)}.",
        f"{agent} dislikes the {rng.choice(THINGS[: difficulty.things])}.",
    )
    return rng.choice(kinds)
