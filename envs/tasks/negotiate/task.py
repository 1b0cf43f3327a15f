"""What the registry lists about the negotiation: generated scenes, two policy seats."""

from __future__ import annotations

from collections.abc import Sequence

from envs.registry import FeedbackPolicy, Metric, Profile, TaskSpec
from envs.tasks.hitom.generator import Part
from envs.tasks.negotiate.env import MAX_SPEECHES, NegotiateEnv, wishes
from envs.tasks.negotiate.scenes import SEATS, TASK, read_scene, scene_row, scenes
from envs.types import Limits, Row, Seat

ROWS_WITHOUT_LIMIT = 200
_PARTS: dict[str, Part] = {"train": "train", "test": "heldout"}


def spec() -> TaskSpec:
    """Self-play in two seats with private wishes and a score by rule."""
    return TaskSpec(
        name=TASK,
        axis="SS",
        version=1,
        metric=Metric("own points"),
        cluster="scene",
        licence="generated rows: as osim",
        env=_env,
        rows=rows,
        seats=SEATS,
        feedback=FeedbackPolicy("rule", sees_gold=True),
        limits=Limits(max_turns=MAX_SPEECHES, max_tokens=128),
        part=lambda row: str(row.data["topic"]),
        private=lambda row: {seat: [wishes(read_scene(row), seat)] for seat in SEATS},
        samples=_samples,
    )


def rows(split: str, limit: int | None, seed: int) -> list[Row]:
    """The first `limit` scenes of a split; "train" and "test" share none."""
    count = ROWS_WITHOUT_LIMIT if limit is None else limit
    return [scene_row(scene, number) for number, scene in enumerate(scenes(_PARTS[split], count, seed))]


def _env(profile: Profile) -> NegotiateEnv:
    return NegotiateEnv()


def _samples(row: Row, seat: Seat) -> Sequence[str]:
    scene = read_scene(row)
    first, last = scene.options[0], scene.options[-1]
    return [f"What about {first}? <offer>{first}</offer>", f"<offer>{last}</offer>", "<accept/>", "<leave/>", "Hm."]
