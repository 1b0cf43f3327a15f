"""What the registry lists about CoSER: every character is a policy seat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from envs.registry import FeedbackPolicy, Metric, Source, TaskSpec, no_rows
from envs.tasks.coser.env import MAX_ROUNDS, CoserEnv
from envs.tasks.coser.examples import RECORDS
from envs.tasks.coser.prompts import CRITIC, END_CHAT, FLAW_JUDGES, JUDGE
from envs.tasks.coser.rows import CHARACTERS, DIRECTOR, ENVIRONMENT, NAME, NARRATOR, Scene, from_record
from envs.tasks.schema import data_of, rows_of_file, rows_of_records
from envs.tasks.talk import only_own
from envs.types import Limits, Row, Seat


def spec() -> TaskSpec:
    """The registry's entry."""
    return TaskSpec(
        name=NAME,
        axis="ROLE",
        version=1,
        metric=Metric("mean of four ratings"),
        cluster="book",
        licence="no licence file in the authors' repository; the novels keep their own rights",
        env=CoserEnv,
        rows=no_rows(NAME),
        read=lambda path: rows_of_file(path, from_record),
        examples=lambda: rows_of_records(RECORDS, from_record),
        seats=CHARACTERS,
        profiles=("strict", "soul", "author"),
        feedback=FeedbackPolicy("critic", sees_gold=True),
        limits=Limits(max_turns=2 * MAX_ROUNDS, max_tokens=512),
        splits=("test",),
        judges=(JUDGE, *FLAW_JUDGES, CRITIC),
        source=Source("https://github.com/Neph0s/CoSER", "624efc5", note="data/test/test_set.json, 200 scenes"),
        private=_private,
        samples=_samples,
        human=lambda row: [line.message for line in data_of(Scene, row).reference],
    )


def _private(row: Row) -> Mapping[Seat, Sequence[str]]:
    scene = data_of(Scene, row)
    motives = {scene.seat_of(f.name): [f.motivation] for f in scene.cast if f.motivation}
    return only_own(motives, [scene.scenario, scene.summary, *(f.profile for f in scene.cast)])


def _samples(row: Row, seat: Seat) -> Sequence[str]:
    scene = data_of(Scene, row)
    if seat == DIRECTOR:
        return [*scene.names, ENVIRONMENT, END_CHAT]
    if seat == NARRATOR:
        return ["A door slams somewhere.", "Environment: The wind turns."]
    return ["[I must not show it.] Good evening. (bows)", "[only thoughts", "I do not believe a word of it."]
