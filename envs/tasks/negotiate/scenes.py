"""Situations in which two people who want different things have to agree on one of a few options. Pure.

Each person has private points (0 to 10) for every option; without an agreement both get nothing. Which part a scene
belongs to is a function of its content, so the train and held-out parts share no scene.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Annotated

from pydantic import Field, model_validator

from common.errors import DataError
from common.files import hash_json
from common.seeds import derive_rng
from envs.tasks.hitom.generator import HELDOUT_SHARE, Part
from envs.tasks.hitom.words import NAMES
from envs.tasks.schema import RowData, data_of, row_of
from envs.types import Row, Seat

TASK = "negotiate"
OPENER: Seat = "opener"
RESPONDER: Seat = "responder"
SEATS = (OPENER, RESPONDER)
MAX_POINTS = 10
ATTEMPTS_PER_SCENE = 200


@dataclass(frozen=True)
class Topic:
    """What a talk is about. `{me}` and `{you}` stand for the two names."""

    name: str
    situation: str
    options: tuple[str, ...]
    ask: str
    """How an option is proposed; `{option}` stands for it."""
    ordered: bool = False
    """One wants more and the other less: points follow the order of the options."""


TOPICS = (
    Topic("day", "They want to meet and look for a day.", ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday",
          "Saturday", "Sunday"), "could we meet on {option}"),
    Topic("price", "One sells an old bike and the other wants to buy it. They look for a price.", ("forty", "fifty",
          "sixty", "seventy", "eighty", "ninety"), "what about {option} for the bike", ordered=True),
    Topic("meal", "They cook together tonight and look for a meal.", ("soup", "rice", "noodles", "fish", "salad",
          "pancakes"), "shall we make {option}"),
    Topic("trip", "They plan a trip for the weekend and look for a place.", ("the lake", "the museum", "the market",
          "the hills", "the coast", "the zoo"), "would you like to go to {option}"),
    Topic("chore", "They share a flat and look for a chore that the other one takes over.", ("dishes", "laundry",
          "shopping", "floors", "windows"), "could the job be {option}"),
)  # fmt: skip
TIES = ("an old friend", "a neighbour", "a colleague", "a cousin", "a flatmate", "a new acquaintance")


class Scene(RowData):
    """One situation, the data of a row. `points[seat][i]` is what option i is worth to that seat."""

    topic: str
    names: tuple[str, str]
    tie: str
    options: Annotated[tuple[str, ...], Field(min_length=2)]
    points: dict[Seat, tuple[Annotated[int, Field(ge=0, le=MAX_POINTS)], ...]]

    @model_validator(mode="after")
    def _check(self) -> Scene:
        if self.topic not in {topic.name for topic in TOPICS}:
            raise ValueError(f"no topic {self.topic!r}")
        if len(set(self.options)) != len(self.options):
            raise ValueError("an option is named twice")
        if set(self.points) != set(SEATS) or any(len(p) != len(self.options) for p in self.points.values()):
            raise ValueError("each seat has one number of points for each option")
        return self

    def name(self, seat: Seat) -> str:
        """The person in this seat."""
        return self.names[SEATS.index(seat)]

    def worth(self, seat: Seat, option: str) -> int:
        """Points of an option for a seat."""
        return self.points[seat][self.options.index(option)]

    @property
    def best_joint(self) -> int:
        """The most that both together can get."""
        return max(map(sum, zip(*self.points.values(), strict=True)))

    @property
    def content_hash(self) -> str:
        return hash_json([self.topic, self.options, [self.points[seat] for seat in SEATS]])


def other(seat: Seat) -> Seat:
    """The seat across the table."""
    return RESPONDER if seat == OPENER else OPENER


def part_of(scene: Scene) -> Part:
    """The part a scene belongs to, by its options and points (names do not count)."""
    return "heldout" if int(scene.content_hash[:8], 16) % HELDOUT_SHARE == 0 else "train"


def make_scene(rng: Random) -> Scene:
    """One scene, of either part: opposed wishes, and one option that somebody likes a little more than that."""
    topic = rng.choice(TOPICS)
    names = rng.sample(NAMES, 2)
    picked = rng.sample(range(len(topic.options)), rng.randint(3, 4))
    if topic.ordered:
        picked.sort()
    ladder = [round(MAX_POINTS * i / (len(picked) - 1)) for i in range(len(picked))]
    wishes = {seat: list(points) for seat, points in zip(SEATS, (ladder, ladder[::-1]), strict=True)}
    seat, bonus = rng.choice(SEATS), rng.randrange(len(picked))
    wishes[seat][bonus] = min(MAX_POINTS, wishes[seat][bonus] + 2)
    order = rng.sample(range(len(picked)), len(picked))
    return Scene(
        topic=topic.name,
        names=(names[0], names[1]),
        tie=rng.choice(TIES),
        options=tuple(topic.options[picked[i]] for i in order),
        points={seat: tuple(wishes[seat][i] for i in order) for seat in SEATS},
    )


def scenes(part: Part, count: int, seed: int) -> Iterator[Scene]:
    """`count` scenes of one part."""
    for number in range(count):
        for attempt in range(ATTEMPTS_PER_SCENE):
            scene = make_scene(derive_rng(seed, TASK, part, number, attempt))
            if part_of(scene) == part:
                yield scene
                break
        else:
            raise DataError(f"no scene of part {part}", where="negotiate", fix="take another seed")


def scene_row(scene: Scene, number: int) -> Row:
    """A task row."""
    return row_of(TASK, f"{scene.content_hash}-{number}", scene.content_hash, scene)


def read_scene(row: Row) -> Scene:
    """The validated scene of a row. Raises DataError."""
    return data_of(Scene, row)


def topic_named(name: str) -> Topic:
    """The topic of this name. Raises KeyError."""
    return {topic.name: topic for topic in TOPICS}[name]
