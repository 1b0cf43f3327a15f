"""What the registry lists about Sotopia: all scenarios, the hard ones that SOUL evaluates, and self-play."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from envs.registry import FeedbackPolicy, Metric, Source, TaskSpec, no_rows
from envs.tasks.schema import data_of, rows_of_file, rows_of_records
from envs.tasks.sotopia import dimensions
from envs.tasks.sotopia.env import MAX_TURNS, SotopiaEnv
from envs.tasks.sotopia.examples import RECORDS
from envs.tasks.sotopia.prompts import COACH, JUDGE
from envs.tasks.sotopia.rows import ACTOR, SEATS, Scene, reader
from envs.tasks.talk import only_own
from envs.types import Episode, Limits, Row, Score, Seat


def spec() -> TaskSpec:
    """The policy plays the side that each row names, against a partner."""
    return _spec("sotopia", (ACTOR,))


def hard_spec() -> TaskSpec:
    """The hard scenarios of SOUL."""
    return _spec("sotopia_hard", (ACTOR,))


def selfplay_spec() -> TaskSpec:
    """The policy plays both sides and both are scored: two learnable seats."""
    return _spec("sotopia_selfplay", SEATS)


def _spec(name: str, scored: tuple[Seat, ...]) -> TaskSpec:
    from_record = reader(name)
    return TaskSpec(
        name=name,
        axis="SS",
        version=1,
        metric=Metric("weighted mean of seven dimensions"),
        cluster="scenario",
        licence="MIT (sotopia), Apache-2.0 (sotopia-pi)",
        env=lambda profile: SotopiaEnv(profile, scored),
        rows=no_rows(name),
        read=lambda path: rows_of_file(path, from_record),
        examples=lambda: rows_of_records(RECORDS, from_record),
        seats=scored,
        profiles=("strict", "soul", "author"),
        feedback=FeedbackPolicy("critic"),
        limits=Limits(max_turns=MAX_TURNS, max_tokens=512),
        splits=("test",),
        judges=(JUDGE, COACH),
        source=Source(
            "https://github.com/sotopia-lab/sotopia", "a0aaafb", note="rows: OdysSim's sotopia_*.parquet; see docs"
        ),
        aggregate=raw_means,
        private=_private,
        samples=_samples,
    )


def raw_means(episodes: Sequence[Episode]) -> Mapping[str, float]:
    """The authors' and OdysSim's numbers, and each dimension on its own scale, over all scored policy seats."""
    scores = [o.parts for e in episodes for o in e.outcomes.values() if isinstance(o, Score) and "overall" in o.parts]
    if not scores:
        return {}
    means = {name: sum(parts[name] for parts in scores) / len(scores) for name in (*dimensions.RANGES, "overall")}
    return {**means, "soul score": dimensions.SOUL_FACTOR * means["overall"]}


def _private(row: Row) -> Mapping[Seat, Sequence[str]]:
    scene = data_of(Scene, row)
    texts = {
        seat: [scene.goals[scene.person(seat)], scene.backgrounds[scene.person(seat)]]
        for seat in (scene.seat(0), scene.seat(1))
    }
    return only_own(texts, [scene.scenario, scene.relationship])


def _samples(row: Row, seat: Seat) -> Sequence[str]:
    return [
        '{"action_type": "speak", "argument": "Hello. Can we talk about Friday?"}',
        '{"action_type": "action", "argument": "puts the list on the table"}',
        '{"action_type": "none", "argument": ""}',
        '{"action_type": "leave", "argument": ""}',
        "I would say we share.",
    ]
