"""Situations in which two people who want different things have to agree on one of a few options. Pure.

Each person has private points (0 to 10) for every option; without an agreement both get nothing. Which part a scene
belongs to is a function of its content, so the train and held-out parts share no scene.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any

from common.errors import DataError
from common.files import hash_json
from common.seeds import derive_rng
from envs.tasks.hitom.generator import HELDOUT_SHARE, Part
from envs.tasks.hitom.words import NAMES
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


@dataclass(frozen=True)
class Scene:
    """One situation. `points[seat][i]` is what option i is worth to that seat."""

    topic: str
    names: tuple[str, str]
    tie: str
    options: tuple[str, ...]
    points: Mapping[Seat, tuple[int, ...]]

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
    data = {
        "topic": scene.topic,
        "names": scene.names,
        "tie": scene.tie,
        "options": scene.options,
        "points": {seat: list(points) for seat, points in scene.points.items()},
    }
    return Row(TASK, f"{scene.content_hash}-{number}", scene.content_hash, data)


def read_scene(row: Row) -> Scene:
    """The validated scene of a row. Raises DataError."""
    try:
        data: Mapping[str, Any] = row.data
        scene = Scene(
            topic=topic_named(str(data["topic"])).name,
            names=(str(data["names"][0]), str(data["names"][1])),
            tie=str(data["tie"]),
            options=tuple(str(option) for option in data["options"]),
            points={seat: tuple(int(p) for p in data["points"][seat]) for seat in SEATS},
        )
    except (KeyError, TypeError, ValueError, IndexError) as e:
        raise DataError(f"malformed row: {e!r}", where=row.id, fix="make rows with scenes.scene_row") from e
    values = [p for points in scene.points.values() for p in points]
    if any(len(points) != len(scene.options) for points in scene.points.values()) or len(set(scene.options)) < 2:
        raise DataError("one number of points for each of two or more options", where=row.id, fix="correct the row")
    if not all(0 <= p <= MAX_POINTS for p in values):
        raise DataError(f"points outside 0 to {MAX_POINTS}", where=row.id, fix="correct the row")
    return scene


def topic_named(name: str) -> Topic:
    """The topic of this name. Raises KeyError."""
    return {topic.name: topic for topic in TOPICS}[name]
