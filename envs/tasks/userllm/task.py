"""What the registry lists about UserLLM, and UserLM's measures over a whole evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from envs.registry import FeedbackPolicy, Metric, Source, TaskSpec, no_rows
from envs.tasks.schema import rows_of_file, rows_of_records
from envs.tasks.userllm.env import USER, UserLLMEnv
from envs.tasks.userllm.examples import RECORDS
from envs.tasks.userllm.measures import (
    DIVERSITY,
    END,
    OVERLAP,
    TERMINATION,
    first_turn_diversity,
    overlap,
    termination_f1,
)
from envs.tasks.userllm.prompts import DETECTOR, REACTION_JUDGE, TURN_JUDGE
from envs.tasks.userllm.rows import NAME, from_record
from envs.types import Episode, Limits, Row, Score, Seat

MAX_PAIRED = 500
"""First turns that diversity compares pairwise."""


def spec() -> TaskSpec:
    """The registry's entry."""
    return TaskSpec(
        name=NAME,
        axis="CONV",
        version=2,
        metric=Metric("turns that a user would write"),
        cluster="intent",
        licence="MIT (UserLM); PRISM CC-BY-4.0, CommonsenseQA MIT, Natural Questions CC BY-SA 3.0",
        env=UserLLMEnv,
        rows=no_rows(NAME),
        read=lambda path: rows_of_file(path, from_record),
        examples=lambda: rows_of_records(RECORDS, from_record),
        seats=(USER,),
        profiles=("strict", "soul"),
        feedback=FeedbackPolicy("rule", sees_gold=True),
        limits=Limits(max_turns=1, max_tokens=512),
        splits=("test",),
        judges=(TURN_JUDGE, REACTION_JUDGE, DETECTOR),
        source=Source("https://huggingface.co/microsoft/UserLM-8b", note="rows: OdysSim's userllm_*.parquet"),
        aggregate=measures,
        part=lambda row: str(row.data["source"]),
        private=lambda row: {USER: [str(row.data["intent"])]},
        samples=_samples,
    )


def measures(episodes: Sequence[Episode]) -> Mapping[str, float]:
    """Diversity ↑, intent overlap ↓ and termination F1 ↑ over the PRISM rows that were scored."""
    turns = [
        (e.row.data, e.says[-1].text)
        for e in episodes
        if e.row.data["source"] == "prism" and e.says and isinstance(e.outcomes.get(USER), Score)
    ]
    spoken = [(data, text.partition(END)[0].strip()) for data, text in turns]
    overlaps = [o for data, text in spoken if (o := overlap(data["intent"], text)) is not None]
    found = {
        DIVERSITY: first_turn_diversity([text for data, text in spoken if not data["history"]][:MAX_PAIRED]),
        OVERLAP: sum(overlaps) / len(overlaps) if overlaps else None,
        TERMINATION: termination_f1([END in text for _, text in turns], [bool(data["last"]) for data, _ in turns]),
    }
    return {name: value for name, value in found.items() if value is not None}


def _samples(row: Row, seat: Seat) -> Sequence[str]:
    return [END, str(row.data["intent"]), "is that even fair to people here", f"ok thanks {END}", "stand or bed"]
