"""Invariant 7: with 30 % of all API requests failing, no surviving sample's reward changes, and the counts add up."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict

from envs.client.client import Client
from envs.client.config import ClientConfig, Endpoint
from envs.engine import Sampling
from envs.env import JudgeAsk
from envs.judges.model import ModelJudge
from envs.judges.spec import JudgeSpec
from envs.play import episode_seed, play
from envs.players.chat import ChatPlayer
from envs.players.engine import EnginePlayer
from envs.types import Episode, FailureReason, Limits, Row, Score, Seat, Unscored
from tests.envs.client.server import CONTENT_FAULTS, HANG_S, Server, at_rate, score_of, serving
from tests.envs.table import Dialogue, SeededEngine, Talk, byte_renderer

RENDERER = byte_renderer()
GROUPS, SAMPLES = 10, 8
# A busy machine answers well within the timeout, and a hung request (HANG_S) ends long after every deadline.
ATTEMPT_TIMEOUT_S = 6.0
DEADLINE_S = 40.0
PATIENT_S = 240.0


class Verdict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    score: float


JUDGE = JudgeSpec("talk", 1, "You judge a talk.", "The talk:\n{transcript}\nHow good?", Verdict)


@dataclass(frozen=True)
class JudgedTalk(Dialogue):
    """Seat a is the policy and judged, seat b a partner without a score of its own."""

    def score(self, state: Talk) -> Any:
        said = "\n".join(f"{who}: {text}" for who, text in state.said)
        return {"a": JudgeAsk("talk", {"transcript": said}, lambda v: Score(v.score)), "b": Score(0.0)}


def answer(body: dict[str, Any]) -> str:
    """The judge's verdict, or the partner's line, from the whole conversation (re-asks left out)."""
    messages = body["messages"]
    if "response_format" in body:
        return json.dumps({"score": score_of(messages[1]["content"])})
    return f"I heard {len(messages[-1]['content'])} letters."


async def rollouts(server: Server, attempt_timeout_s: float, deadline_s: float) -> dict[tuple[str, int], Episode]:
    endpoint = Endpoint(
        model="m",
        base_url=server.url,
        attempt_timeout_s=attempt_timeout_s,
        deadline_s=deadline_s,
        max_retries=1,
        max_reasks=1,
    )
    client = Client(ClientConfig(judge=endpoint, partner=endpoint), environment={})
    judge = ModelJudge(client, [JUDGE])
    policy = EnginePlayer(SeededEngine(RENDERER), RENDERER, Sampling(max_tokens=12))
    players = {"a": policy, "b": ChatPlayer(client)}

    async def one(group: int, sample: int) -> Episode:
        row = Row("talk", str(group), str(group), {})
        seed = episode_seed(3, 0, row, sample)
        limits = Limits(turn_timeout_s=2 * deadline_s, episode_timeout_s=8 * deadline_s)
        return await play(JudgedTalk(), row, players, judge=judge, learnable=["a"], seed=seed, limits=limits)

    keys = [(str(g), s) for g in range(GROUPS) for s in range(SAMPLES)]
    episodes = await asyncio.gather(*(one(int(g), s) for g, s in keys))
    await client.close()
    return dict(zip(keys, episodes, strict=True))


def run(server: Server, attempt_timeout_s: float, deadline_s: float) -> dict[tuple[str, int], Episode]:
    async def main() -> dict[tuple[str, int], Episode]:
        async with serving(server):
            return await rollouts(server, attempt_timeout_s, deadline_s)

    return asyncio.run(main())


def rewards(episodes: dict[Any, Episode], seat: Seat = "a") -> dict[Any, float]:
    return {key: o.value for key, e in episodes.items() if isinstance(o := e.outcomes[seat], Score)}


@pytest.mark.slow
def test_failing_judges_and_partners_change_no_surviving_reward_and_every_sample_is_accounted_for() -> None:
    calm = run(Server(answer=answer), PATIENT_S, PATIENT_S)
    truth = rewards(calm)
    assert len(truth) == GROUPS * SAMPLES

    shaky = Server(at_rate(0.3), answer=answer)
    started = time.monotonic()
    episodes = run(shaky, ATTEMPT_TIMEOUT_S, DEADLINE_S)
    # Four questions in a row (three lines of the partner, one verdict), each within its deadline.
    assert time.monotonic() - started < 4 * DEADLINE_S + 30 < HANG_S
    survived = rewards(episodes)
    assert 0 < len(survived) < len(truth)
    assert all(truth[key] == reward for key, reward in survived.items())
    for key in survived:
        assert episodes[key].says == calm[key].says
        assert episodes[key].traces["a"] == calm[key].traces["a"]

    reasons = Counter(o.reason for e in episodes.values() if isinstance(o := e.outcomes["a"], Unscored))
    assert set(reasons) <= {FailureReason.JUDGE_FAILED, FailureReason.PARTNER_FAILED}
    assert len(survived) + sum(reasons.values()) == len(truth)
    assert all(reasons[r] for r in (FailureReason.JUDGE_FAILED, FailureReason.PARTNER_FAILED))

    calls = [call for e in episodes.values() for call in e.judge_calls]
    failed = [call for call in calls if call.error is not None]
    # Every request that the server saw is a recorded call, and every other call is a timeout; a failed call is a
    # fault that the server chose, or a timeout.
    hung = sum(call.error.startswith(("timeout", "deadline")) for call in failed if call.error)
    in_transport = sum(n for fault, n in shaky.faults.items() if fault not in CONTENT_FAULTS)
    assert 0 <= len(calls) - sum(shaky.asked.values()) <= hung
    assert 0 < len(failed) - hung <= in_transport
    texts = {call.reply for call in calls if call.error is None}
    assert all(s.text in texts for e in episodes.values() for s in e.says if s.seat == "b")
