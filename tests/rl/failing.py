"""A task whose judge always fails."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from envs.registry import TaskSpec
from envs.types import FailureReason, Outcome, Seat, Unscored
from tests.rl import letters


@dataclass(frozen=True)
class FailingEnv(letters.LettersEnv):
    def score(self, state: letters.LettersState) -> Mapping[Seat, Outcome]:
        return {letters.SEAT: Unscored(FailureReason.JUDGE_FAILED, "the judge is away")}


def spec() -> TaskSpec:
    return replace(letters.spec(), env=lambda profile: FailingEnv())
