"""The letters task with a judge: its verdict is the score."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from pydantic import BaseModel

from envs.env import JudgeAsk
from envs.judges.spec import JudgeSpec
from envs.registry import TaskSpec
from envs.types import Score, Seat
from tests.rl import letters


class Verdict(BaseModel):
    score: float


JUDGE = JudgeSpec("letters.judge", 1, "Rate the text from 0 to 1.", "{transcript}", Verdict)


@dataclass(frozen=True)
class JudgedEnv(letters.LettersEnv):
    def score(self, state: letters.LettersState) -> Mapping[Seat, JudgeAsk]:
        return {letters.SEAT: JudgeAsk(JUDGE.id, {"transcript": "\n".join(state.said)}, lambda v: Score(v.score))}


def spec() -> TaskSpec:
    return replace(letters.spec(), env=lambda profile: JudgedEnv(), judges=(JUDGE,))
