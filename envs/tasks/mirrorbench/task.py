"""What the registry lists about MirrorBench."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from envs.registry import FeedbackPolicy, Metric, Source, TaskSpec, no_rows
from envs.tasks.mirrorbench.env import ASSISTANT, MEASURES, USER, MirrorBenchEnv
from envs.tasks.mirrorbench.examples import RECORDS
from envs.tasks.mirrorbench.lexical import mean_sd_half_width
from envs.tasks.mirrorbench.prompts import CRITIC, GTEVAL, TURNS_JUDGE
from envs.tasks.mirrorbench.rows import MAX_TURNS, NAME, Conversation, from_record
from envs.tasks.schema import data_of, rows_of_file, rows_of_records
from envs.tasks.talk import only_own
from envs.types import Episode, Limits, Row, Score, Seat


def spec() -> TaskSpec:
    """The registry's entry."""
    return TaskSpec(
        name=NAME,
        axis="CONV",
        version=1,
        metric=Metric("likeness of user turns"),
        cluster="conversation",
        licence="Apache-2.0 (MirrorBench); its corpora keep their own: Chatbot Arena, ClariQ, OASST1, QuLAC",
        env=MirrorBenchEnv,
        rows=no_rows(NAME),
        read=lambda path: rows_of_file(path, from_record),
        examples=lambda: rows_of_records(RECORDS, from_record),
        seats=(USER,),
        profiles=("strict", "soul", "author"),
        feedback=FeedbackPolicy("critic", sees_gold=True),
        limits=Limits(max_turns=MAX_TURNS, max_tokens=512),
        splits=("test",),
        judges=(TURNS_JUDGE, GTEVAL, CRITIC),
        source=Source("https://github.com/SAP/mirrorbench", "2d4b802", note="scratch_pad/data/*/*_mirror.jsonl"),
        aggregate=lexical_distance,
        part=lambda row: str(row.data["dataset"]),
        private=_private,
        samples=_samples,
        human=lambda row: data_of(Conversation, row).said_by("user"),
    )


def lexical_distance(episodes: Sequence[Episode]) -> Mapping[str, float]:
    """The authors' z-scores: mean of (proxy - human mean) / human standard deviation. The target is 0, not "high".

    Over words, not over the tokens of one vendor: comparable between runs here, not with the published numbers.
    """
    parts = [o.parts for e in episodes if isinstance(o := e.outcomes.get(USER), Score)]
    found: dict[str, float] = {}
    for name in MEASURES:
        pairs = [
            (p[f"{name} proxy"], p[f"{name} human"]) for p in parts if {f"{name} proxy", f"{name} human"} <= set(p)
        ]
        mean, sd, _ = mean_sd_half_width([human for _, human in pairs])
        if len(pairs) > 1 and sd > 0:
            found[f"{name} z"] = sum((proxy - mean) / sd for proxy, _ in pairs) / len(pairs)
    return found


def _private(row: Row) -> Mapping[Seat, Sequence[str]]:
    conversation = data_of(Conversation, row)
    hidden = [turn.content for turn in conversation.turns[len(conversation.given) :]]
    return only_own({ASSISTANT: hidden}, [conversation.description, *(turn.content for turn in conversation.given)])


def _samples(row: Row, seat: Seat) -> Sequence[str]:
    return ["hm ok and what then", "User: thanks, that works", "no the other one", str(row.data["description"])]
