"""The embedded engine's own claims: a request never sees its neighbours; failures stay with their request."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.errors import DataError, UsageError
from envs.engine import EngineError, Generation, Sampling
from rl.rollout.config import RolloutConfig
from rl.rollout.draw import draw, log_probs, uniform
from rl.rollout.embedded import EmbeddedEngine
from rl.rollout.select import choose_engine, open_rollout
from tests.first_calls import FirstCalls

VOCAB = 331
PROMPT = tuple(5 + (11 * i) % 300 for i in range(70))
LONG = tuple(5 + (13 * i) % 300 for i in range(240))
"""Its completion grows out of the first attention span (256)."""
HARD = Sampling(40, temperature=1.5, top_p=0.95)


@pytest.fixture(scope="module")
def alone(embedded: EmbeddedEngine, runner: asyncio.Runner, checkpoints) -> Generation:
    """What one request gives when nothing else runs and nothing is cached."""

    async def run() -> Generation:
        await embedded.update_weights(checkpoints[0], 1)
        return await embedded.generate(LONG, HARD, seed=77, request_id="alone")

    return runner.run(run())


prompts = st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=400)
neighbour = st.tuples(prompts, st.integers(1, 60), st.sampled_from([0.0, 0.7, 1.0, 2.0]), st.integers(0, 2**62))


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(before=st.lists(neighbour, max_size=20), after=st.lists(neighbour, max_size=30), flush=st.booleans())
def test_a_request_gives_the_same_bits_whatever_else_is_in_the_batch(
    embedded, runner, checkpoints, alone, before, after, flush
):
    """Neighbours of other lengths, temperatures, lifetimes; other slots, other run sizes, warm or cold cache."""

    async def run() -> Generation:
        if flush:
            await embedded.update_weights(checkpoints[0], 1)

        def ask(i: int, one) -> asyncio.Task[Generation]:
            ids, max_tokens, temperature, seed = one
            call = embedded.generate(
                tuple(ids), Sampling(max_tokens, temperature=temperature), seed=seed, request_id=f"n{i}"
            )
            return asyncio.create_task(call)

        tasks = [ask(i, one) for i, one in enumerate(before)]
        mine = asyncio.create_task(embedded.generate(LONG, HARD, seed=77, request_id="mine"))
        tasks += [ask(len(before) + i, one) for i, one in enumerate(after)]
        await asyncio.gather(*tasks)
        return await mine

    crowded = runner.run(run())
    assert crowded.ids == alone.ids
    assert crowded.logprobs == alone.logprobs


def test_the_matrix_library_was_found_to_treat_rows_alike(embedded):
    """If this fails on some machine the engine is still right: it then decodes one request at a time."""
    assert embedded._core.rows_independent or embedded._core.run_sizes == (1,)


def test_no_two_threads_make_the_first_call_of_a_function_of_mkl(checkpoints):
    with FirstCalls() as calls:
        engine = EmbeddedEngine(checkpoints[0])
    asyncio.run(engine.close())
    assert {"cos float32", "sin float32"} <= calls.elements.keys() and set(calls.elements.values()) == {1}


def test_decoding_one_request_at_a_time_gives_right_answers_too(checkpoints, runner):
    """The fallback for machines where a row's bits depend on its place."""
    engine = EmbeddedEngine(checkpoints[0], max_context=256)
    engine._core.run_sizes = (1,)

    async def run() -> list[Generation]:
        calls = [engine.generate(PROMPT[: 20 + i], Sampling(12), seed=i, request_id=f"{i}") for i in range(6)]
        generations = await asyncio.gather(*calls)
        scores = [await engine.score(PROMPT[: 20 + i] + g.ids, 20 + i) for i, g in enumerate(generations)]
        gaps = [
            abs(a - b) for g, s in zip(generations, scores, strict=True) for a, b in zip(g.logprobs, s, strict=True)
        ]
        assert max(gaps) < 1e-4
        await engine.close()
        return generations

    assert len(runner.run(run())) == 6


def test_cancelling_a_call_frees_its_slot(embedded, runner, checkpoints):
    async def run() -> int:
        await embedded.update_weights(checkpoints[0], 1)
        calls = [
            asyncio.create_task(embedded.generate(PROMPT, Sampling(400), seed=i, request_id=f"c{i}"))
            for i in range(40)
        ]
        await asyncio.sleep(0.05)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        answer = await embedded.generate(PROMPT, Sampling(2), seed=1, request_id="after")
        return len(answer.ids)

    assert runner.run(run()) == 2
    assert len(embedded._free) == embedded._core.slots


def test_a_request_id_in_use_is_refused(embedded, runner):
    async def run() -> None:
        first = asyncio.create_task(embedded.generate(PROMPT, Sampling(200), seed=1, request_id="same"))
        await asyncio.sleep(0.02)
        with pytest.raises(EngineError, match="in use"):
            await embedded.generate(PROMPT, Sampling(2), seed=1, request_id="same")
        await embedded.abort()
        assert (await first).finish == "abort"

    runner.run(run())


def test_logits_that_are_not_finite_fail_their_request_and_leave_no_trace(checkpoints, runner, tmp_path):
    engine = EmbeddedEngine(checkpoints[0], max_context=256)
    name = "model.layers.0.self_attn.v_proj.weight"
    healthy = engine._parameters[name].clone()

    async def run() -> None:
        await engine.update_weights([(name, torch.full_like(healthy, float("nan")))], 1)
        with pytest.raises(EngineError, match="not finite"):
            await engine.generate(PROMPT, Sampling(4), seed=1, request_id="nan")
        await engine.update_weights([(name, healthy)], 2)
        assert (await engine.generate(PROMPT, Sampling(4), seed=1, request_id="fine")).versions[0].version == 2
        await engine.close()
        with pytest.raises(EngineError, match="closed"):
            await engine.generate(PROMPT, Sampling(4), seed=1, request_id="closed")

    runner.run(run())


def test_an_update_that_breaks_off_half_way_serves_nothing_until_a_whole_one(checkpoints, runner):
    engine = EmbeddedEngine(checkpoints[0], max_context=256)
    names = list(engine._parameters)

    async def run() -> None:
        await engine.begin_update()
        await engine.load_bucket([(names[0], engine._parameters[names[0]] * 2)])
        await engine.end_update()
        assert not (await engine.health()).serving
        with pytest.raises(EngineError, match="half-way"):
            await engine.generate(PROMPT, Sampling(4), seed=1, request_id="x")
        await engine.update_weights(checkpoints[1], 3)
        assert (await engine.health()).serving
        await engine.close()

    runner.run(run())


def test_the_models_own_end_tokens_end_a_generation(checkpoints, runner, tmp_path):
    folder = tmp_path / "with_end"
    shutil.copytree(checkpoints[0], folder)
    engine = EmbeddedEngine(checkpoints[0], max_context=256)
    free = runner.run(engine.generate(PROMPT, Sampling(20, temperature=0.0), seed=1, request_id="free"))
    runner.run(engine.close())
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"eos_token_id": free.ids[4]}))
    ending = EmbeddedEngine(folder, max_context=256)
    ended = runner.run(ending.generate(PROMPT, Sampling(20, temperature=0.0), seed=1, request_id="ended"))
    runner.run(ending.close())
    assert ended.ids == free.ids[: free.ids.index(free.ids[4]) + 1]
    assert ended.finish == "stop"


def test_a_damaged_checkpoint_is_one_clear_error(checkpoints, tmp_path: Path):
    broken = tmp_path / "broken"
    shutil.copytree(checkpoints[0], broken)
    weights = next(broken.glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(DataError, match="unreadable"):
        EmbeddedEngine(broken)
    with pytest.raises(UsageError, match=r"config\.json"):
        EmbeddedEngine(tmp_path / "absent")


def test_drawing_follows_the_distribution_and_never_leaves_the_kept_set():
    torch.manual_seed(0)
    logits_BV = torch.randn(1, 9).repeat(4000, 1)
    sampling = [Sampling(1, temperature=0.8, top_p=0.7)] * 4000
    logp_BV = log_probs(logits_BV, sampling)
    drawn = draw(logp_BV, sampling, [uniform(3, t) for t in range(4000)])
    order = logp_BV[0].exp().sort(descending=True)
    kept = order.indices[: int((order.values.cumsum(0) < 0.7).sum()) + 1]
    assert set(drawn.tolist()) == set(kept.tolist())
    share = torch.bincount(drawn, minlength=9)[kept] / 4000
    expected = logp_BV[0].exp()[kept] / logp_BV[0].exp()[kept].sum()
    assert (share - expected).abs().max() < 0.03  # four standard errors of a share of 4000 draws


@given(seed=st.integers(0, 2**63 - 1), index=st.integers(0, 10**6))
def test_uniforms_lie_in_the_half_open_unit_interval(seed, index):
    assert 0 <= uniform(seed, index) < 1


def test_the_choice_of_engine_says_why(tmp_path: Path, checkpoints, runner, capsys):
    python = tmp_path / ".venv-sglang" / "bin" / "python"
    assert choose_engine(RolloutConfig(python=python))[0] == "embedded"
    with pytest.raises(UsageError, match="make sglang"):
        choose_engine(RolloutConfig(kind="sglang", python=python))
    python.parent.mkdir(parents=True)
    python.touch()
    assert choose_engine(RolloutConfig(python=python))[0] == "embedded"  # `make sglang` was cut off
    (python.parent.parent / ".ready").touch()
    assert choose_engine(RolloutConfig(python=python))[0] == "sglang"
    assert choose_engine(RolloutConfig(kind="embedded", python=python))[0] == "embedded"
    assert choose_engine(RolloutConfig(urls=("http://127.0.0.1:1",), python=python))[0] == "sglang"

    async def run() -> None:
        engine = await open_rollout(checkpoints[0], RolloutConfig(kind="embedded"), tmp_path)
        assert (await engine.health()).serving
        await engine.close()

    runner.run(run())
    assert "rollout engine: embedded transformers (as configured)" in capsys.readouterr().out
