"""Named difficulties: a level fixes stories, questions and prompt form, so that equal names mean equal tasks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from common.errors import UsageError
from envs.tasks.hitom.generator import Difficulty
from envs.tasks.hitom.rows import PromptStyle


@dataclass(frozen=True)
class Level:
    """Stories of one difficulty, asked in one form."""

    name: str
    difficulty: Difficulty
    prompt: PromptStyle


LEVELS: Mapping[str, Level] = {
    level.name: level
    for level in (
        # The benchmark's sizes: five agents, up to three chapters, claims, 15 lettered choices, the rules in full.
        Level("hitom", Difficulty(chapters=2, tell_probability=0.5), "rules"),
        # For models of a few million parameters: one chapter, few words, no rules text, no choices to pick from.
        Level(
            "hitom_mini",
            Difficulty(
                agents=3,
                move_probability=0.7,
                distractor_probability=0.0,
                choices=12,
                names=10,
                things=8,
                containers=12,
                rooms=4,
                plain_containers=True,
                waiting_room=False,
            ),
            "brief",
        ),
    )
}


def level(name: str) -> Level:
    """The level of this name. Raises UsageError."""
    if name not in LEVELS:
        raise UsageError(f"unknown level {name!r}", where="hitom", fix=f"one of {', '.join(LEVELS)}")
    return LEVELS[name]
