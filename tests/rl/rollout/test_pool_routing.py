"""Which engine of a pool gets a request. No server runs: choosing needs none."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch

from envs.engine import EngineError, Sampling
from rl.rollout.config import RolloutConfig
from rl.rollout.pool import OVERLOAD_FLOOR, EnginePool, Member
from rl.rollout.server import SGLangServer
from rl.rollout.sglang import SGLangEngine

ENGINES = 4


@pytest.fixture
def idle_pool(checkpoints, tmp_path: Path) -> EnginePool:
    """Four engines that nobody serves (port 1), all believed to be up."""
    config = RolloutConfig(kind="sglang", servers=ENGINES, start_timeout_s=0.2)
    pool = EnginePool(checkpoints[0], config, tmp_path)
    for i in range(ENGINES):
        engine = SGLangEngine("http://127.0.0.1:1", checkpoints[0])
        pool._members.append(Member(engine, None, key=str(i).encode()))
        pool.vocab_size, pool.max_context = engine.vocab_size, engine.max_context
    return pool


def prompt(number: int) -> tuple[int, ...]:
    return tuple((number * 31 + i * 7) % 300 for i in range(300))


def test_a_group_goes_to_one_engine_and_groups_spread_over_all(idle_pool, runner):
    async def choices() -> list[bytes]:
        return [(await idle_pool._choose(prompt(n))).key for n in range(200)]

    first, again = runner.run(choices()), runner.run(choices())
    assert first == again
    counts = Counter(first)
    assert len(counts) == ENGINES
    assert max(counts.values()) < 2.5 * 200 / ENGINES


def test_later_turns_of_an_episode_follow_its_first(idle_pool, runner):
    async def both() -> tuple[Member, Member]:
        return await idle_pool._choose(prompt(3)), await idle_pool._choose((*prompt(3), 1, 2, 3))

    first, second = runner.run(both())
    assert first is second


def test_a_busy_engine_passes_requests_on(idle_pool, runner):
    favourite = runner.run(idle_pool._choose(prompt(3)))
    favourite.load = 10 * OVERLOAD_FLOOR
    assert runner.run(idle_pool._choose(prompt(3))) is not favourite
    favourite.load = OVERLOAD_FLOOR
    assert runner.run(idle_pool._choose(prompt(3))) is favourite


def test_losing_an_engine_moves_only_its_own_prompts(idle_pool, runner):
    async def choices() -> list[bytes]:
        return [(await idle_pool._choose(prompt(n))).key for n in range(100)]

    before = runner.run(choices())
    lost = idle_pool._members[1]
    lost.up = False
    after = runner.run(choices())
    assert all(a == b for a, b in zip(after, before, strict=True) if b != lost.key)
    assert lost.key not in after


def test_with_no_engine_left_a_request_ends_at_its_deadline(idle_pool, runner):
    for member in idle_pool._members:
        member.up = False
    with pytest.raises(EngineError, match="no engine came back"):
        runner.run(idle_pool._choose(prompt(0)))


def test_requests_to_dead_servers_move_on_until_none_is_left(idle_pool, runner):
    """Every engine refuses the connection: each is tried, taken out and queued for replacement; then the deadline."""

    async def scenario() -> None:
        with pytest.raises(EngineError):
            await asyncio.wait_for(idle_pool.generate(prompt(0), Sampling(4), seed=1, request_id="x"), 10)
        assert not any(member.up for member in idle_pool._members)
        await idle_pool.close()

    runner.run(scenario())


def test_a_replacement_that_cannot_be_made_fails_the_waiting_requests_at_once(checkpoints, tmp_path, runner):
    """The servers' log cannot be written; the requests' own deadline is far away."""
    (tmp_path / "sglang-0.log").mkdir()
    config = RolloutConfig(kind="sglang", python=Path(sys.executable), device="cpu", start_timeout_s=3600)

    async def scenario() -> None:
        pool = EnginePool(checkpoints[0], config, tmp_path)
        engine = SGLangEngine("http://127.0.0.1:1", checkpoints[0])
        pool._members.append(Member(engine, SGLangServer(checkpoints[0], config, tmp_path), key=b"0"))
        pool.vocab_size, pool.max_context = engine.vocab_size, 1024
        asked = (pool.generate(prompt(n), Sampling(4), seed=1, request_id=f"{n}") for n in range(3))
        for error in await asyncio.wait_for(asyncio.gather(*asked, return_exceptions=True), 60):
            assert isinstance(error, EngineError)
            assert "IsADirectoryError" in str(error) and "sglang-0.log" in str(error)
        with pytest.raises(EngineError, match="no engine is up; IsADirectoryError"):
            await pool.flush()
        await pool.close()

    runner.run(scenario())


def test_an_update_begins_once_a_dead_engine_is_replaced(idle_pool, runner, monkeypatch):
    """The only server died after the last rollout: nobody noticed yet, and the stream of weights exists once."""
    answering: set[SGLangEngine] = set()
    received: list[tuple[SGLangEngine, int]] = []

    async def answers(engine: SGLangEngine, *, idle: bool) -> bool:
        return engine in answering

    async def begins(engine: SGLangEngine) -> None:
        if engine not in answering:
            raise EngineError(f"{engine.name}: connection reset")

    async def loads(engine: SGLangEngine, bucket, *, final_version: int | None = None) -> None:
        received.append((engine, final_version or 0))

    async def ends(engine: SGLangEngine) -> None:
        pass

    async def revive(member: Member) -> None:
        await asyncio.sleep(0)
        member.engine, member.up = SGLangEngine("http://127.0.0.1:1", idle_pool._model), True
        answering.add(member.engine)

    for name, double in {
        "answers": answers,
        "begin_update": begins,
        "load_bucket": loads,
        "end_update": ends,
    }.items():
        monkeypatch.setattr(SGLangEngine, name, double)
    monkeypatch.setattr(idle_pool, "_revive", revive)
    del idle_pool._members[1:]
    idle_pool._config = idle_pool._config.model_copy(update={"start_timeout_s": 60.0})

    async def scenario() -> None:
        await asyncio.wait_for(idle_pool.update_weights(iter([("w", torch.zeros(2))]), 1), 60)
        assert [(e in answering, version) for e, version in received] == [(True, 1)]
        assert idle_pool.replacements == 1
        await idle_pool.close()

    runner.run(scenario())


def test_bad_requests_are_refused_before_any_engine_is_tried(idle_pool, runner):
    with pytest.raises(EngineError, match="outside the vocabulary"):
        runner.run(idle_pool.generate((10**6,), Sampling(4), seed=1, request_id="x"))
    assert all(member.up for member in idle_pool._members)
