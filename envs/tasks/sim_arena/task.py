"""What the registry lists about SimulatorArena: sim_math and sim_doc."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from envs.ranks import spearman
from envs.registry import FeedbackPolicy, Metric, Source, TaskSpec, no_rows
from envs.tasks.schema import data_of, rows_of_file, rows_of_records
from envs.tasks.sim_arena.env import MAX_MESSAGES, USER, SimArenaEnv
from envs.tasks.sim_arena.examples import DOC, MATH
from envs.tasks.sim_arena.prompts import (
    CRITIC,
    DOCUMENT_JUDGE,
    END,
    INTERACTION_JUDGE,
    TRAITS_JUDGE,
    WRITING_JUDGE,
)
from envs.tasks.sim_arena.rows import NAMES, Kind, Session, reader
from envs.tasks.talk import only_own
from envs.types import Episode, Limits, Row, Score, Seat

JUDGES = (WRITING_JUDGE, INTERACTION_JUDGE, TRAITS_JUDGE, CRITIC)


def math_spec() -> TaskSpec:
    """A student and a tutor."""
    return _spec("math")


def doc_spec() -> TaskSpec:
    """A writer and a writing assistant."""
    return _spec("doc")


def _spec(kind: Kind) -> TaskSpec:
    name, from_record = NAMES[kind], reader(kind)
    return TaskSpec(
        name=name,
        axis="ROLE" if kind == "math" else "CONV",
        version=1,
        metric=Metric("likeness to the real person"),
        cluster="problem" if kind == "math" else "document",
        licence="MIT; the problems are from MATH (MIT)" if kind == "math" else "MIT",
        env=lambda profile: SimArenaEnv(kind, profile),
        rows=no_rows(name),
        read=lambda path: rows_of_file(path, from_record),
        examples=lambda: rows_of_records(MATH if kind == "math" else DOC, from_record),
        seats=(USER,),
        profiles=("strict", "soul", "author"),
        feedback=FeedbackPolicy("critic", sees_gold=True),
        limits=Limits(max_turns=2 * MAX_MESSAGES + 2, max_tokens=1024),
        splits=("test",),
        judges=JUDGES if kind == "math" else (*JUDGES, DOCUMENT_JUDGE),
        unjudged=("author",),
        source=Source("https://github.com/microsoft/SimulatorArena", "e9f677c", note="data/*.json"),
        aggregate=rating_correlation,
        private=_private,
        samples=_samples,
    )


def rating_correlation(episodes: Sequence[Episode]) -> Mapping[str, float]:
    """The authors' question, do simulated people rate as real ones did: Spearman's rho over rated rows."""
    scored = [o.parts for e in episodes if isinstance(o := e.outcomes.get(USER), Score)]
    rated = [parts for parts in scored if "rating" in parts]
    rho = spearman([p["rating"] for p in rated], [p["real rating"] for p in rated]) if len(rated) > 2 else None
    return {} if rho is None else {"Spearman of ratings": rho}


def _private(row: Row) -> Mapping[Seat, Sequence[str]]:
    session = data_of(Session, row)
    told = [session.profile, *(feature.description for feature in session.features)]
    return only_own({USER: [*told, *session.queries]}, [session.task])


def _samples(row: Row, seat: Seat) -> Sequence[str]:
    return ["Thought: keep it short.\nMessage: how do i start", "ok and then?", END, "Message:", "7", "8/10"]
