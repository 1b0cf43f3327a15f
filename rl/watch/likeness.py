"""Distances between the policy's turns and people's, step by step. Runs on rank 0; numpy only, seconds at most.

A subset of eval.human_likeness without intervals: those are for reports, this is for trends.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from common.errors import DataError
from common.files import read_jsonl
from envs.types import Episode, Seat
from eval.human_likeness.style import MEASURES
from eval.human_likeness.text import Utterance

MOST_TURNS = 2000


def read_turns(path: Path) -> list[Utterance]:
    """The reference. Raises DataError for a line without text."""
    found = []
    for i, line in enumerate(read_jsonl(path)):
        if not isinstance(line.get("text"), str):
            raise DataError(
                "a line without `text`", where=f"{path}:{i + 1}", fix="one JSON object with text per line"
            )
        found.append(Utterance(line["text"], str(line.get("conversation", i))))
    if not found:
        raise DataError("no turns", where=str(path), fix="give turns of people, one JSON object per line")
    return found


def turns_of(episodes: Sequence[tuple[Episode, Sequence[Seat]]]) -> list[Utterance]:
    """What the learnable seats said."""
    return [
        Utterance(say.text, str(i))
        for i, (episode, seats) in enumerate(episodes)
        for say in episode.says
        if say.seat in seats
    ][:MOST_TURNS]


def distances(generated: Sequence[Utterance], human: Sequence[Utterance]) -> dict[str, float | int]:
    """`human/<measure>`: 0 is alike."""
    if not generated:
        return {}
    return {f"human/{m.name}": m.distance(generated, human) for m in MEASURES} | {"human/n": len(generated)}
