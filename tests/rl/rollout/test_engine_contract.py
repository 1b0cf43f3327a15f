"""The contract of a rollout engine, run against every kind; the reference is a transformers forward pass."""

from __future__ import annotations

import asyncio
import functools
import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import torch

from common.errors import GateError
from envs.engine import EngineError, Generation, Sampling
from rl.rollout.base import RolloutEngine
from rl.rollout.checkpoint import read_tensors
from rl.weight_sync import push_weights

PROMPT = tuple(5 + (7 * i) % 300 for i in range(90))
TOLERANCE = 1e-4
Run = Callable[[Awaitable], object]


@pytest.fixture
def run(runner: asyncio.Runner) -> Run:
    return runner.run


@functools.cache
def reference_model(path: Path):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation="eager").eval()


def reference_logprobs(path: Path, ids: tuple[int, ...], start: int, temperature: float = 1.0) -> list[float]:
    """log p(ids[t] | ids[:t]) for t >= start by one forward pass."""
    with torch.no_grad():
        logits_TV = reference_model(path)(torch.tensor([ids])).logits[0].double()
    logp_TV = torch.log_softmax(logits_TV / temperature, dim=-1)
    return [logp_TV[t - 1, ids[t]].item() for t in range(start, len(ids))]


def gap(path: Path, generation: Generation, temperature: float = 1.0) -> float:
    expected = reference_logprobs(path, PROMPT + generation.ids, len(PROMPT), temperature)
    return max(abs(a - b) for a, b in zip(generation.logprobs, expected, strict=True))


async def sample(
    engine: RolloutEngine, max_tokens: int = 24, *, seed: int = 1, name: str = "r", **more
) -> Generation:
    return await engine.generate(PROMPT, Sampling(max_tokens, **more), seed=seed, request_id=name)


async def long_running(engine: RolloutEngine) -> asyncio.Task[Generation]:
    """A request in flight: 400 tokens, of which some have been drawn."""
    task = asyncio.create_task(sample(engine, 400, name="long"))
    await asyncio.sleep(0.3)
    assert not task.done()
    return task


def test_greedy_tokens_equal_those_of_transformers(engine, run, checkpoints):
    generation = run(sample(engine, 48, temperature=0.0))
    ids = torch.tensor([PROMPT])
    reply = reference_model(checkpoints[0]).generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=48, do_sample=False
    )
    assert generation.ids == tuple(reply[0, len(PROMPT) :].tolist())


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_output_logprobs_are_those_of_the_sampling_temperature(engine, run, checkpoints, temperature):
    generation = run(sample(engine, 48, temperature=temperature))
    assert gap(checkpoints[0], generation, temperature) < TOLERANCE
    assert len(generation.logprobs) == len(generation.ids) > 0


def test_logprobs_under_truncation_stay_those_of_the_full_vocabulary(engine, run, checkpoints):
    generation = run(sample(engine, 24, top_k=3, top_p=0.9))
    assert gap(checkpoints[0], generation) < TOLERANCE


def test_top_k_draws_only_from_the_k_most_likely(engine, run, checkpoints):
    generation = run(sample(engine, 40, top_k=2, temperature=3.0))
    ids = PROMPT + generation.ids
    with torch.no_grad():
        logits_TV = reference_model(checkpoints[0])(torch.tensor([ids])).logits[0]
    best = logits_TV[len(PROMPT) - 1 : -1].topk(2).indices.tolist()
    assert all(token in two for token, two in zip(generation.ids, best, strict=True))


def test_scores_are_logprobs_at_temperature_one_from_the_asked_position(engine, run, checkpoints):
    for start in (1, 40, len(PROMPT) - 1):
        scores = run(engine.score(PROMPT, start))
        expected = reference_logprobs(checkpoints[0], PROMPT, start)
        assert max(abs(a - b) for a, b in zip(scores, expected, strict=True)) < TOLERANCE
    assert run(engine.score(PROMPT, len(PROMPT))) == ()


def test_the_first_and_the_last_id_of_the_vocabulary_are_scored_like_any_other(engine, run, checkpoints):
    ids = (*PROMPT[:20], engine.vocab_size - 1, 0, 7, engine.vocab_size - 1)
    expected = reference_logprobs(checkpoints[0], ids, 18)
    assert max(abs(a - b) for a, b in zip(run(engine.score(ids, 18)), expected, strict=True)) < TOLERANCE


def test_generation_ends_at_a_stop_id_and_keeps_it(engine, run):
    free = run(sample(engine, 24, temperature=0.0))
    stop = free.ids[5]
    stopped = run(sample(engine, 24, temperature=0.0, stop_ids=(stop,)))
    first = free.ids.index(stop)
    assert stopped.ids == free.ids[: first + 1]
    assert stopped.finish == "stop"
    assert run(sample(engine, 3, temperature=0.0)).finish == "length"


def test_a_repeated_prompt_comes_from_the_prefix_cache(engine, run):
    async def twice() -> tuple[Generation, Generation]:
        await engine.flush()
        return await sample(engine, 4, name="first"), await sample(engine, 4, name="second")

    first, second = run(twice())
    assert first.cached_tokens == 0
    assert second.cached_tokens >= len(PROMPT) - 2


def test_concurrent_requests_each_get_their_own_answer(engine, run, checkpoints):
    async def many() -> list[Generation]:
        calls = [sample(engine, 8 + i % 9, seed=i, name=f"many-{i}") for i in range(48)]
        return await asyncio.gather(*calls)

    generations = run(many())
    assert all(len(g.ids) <= 8 + i % 9 for i, g in enumerate(generations))
    assert max(gap(checkpoints[0], g) for g in generations) < TOLERANCE
    assert len({g.ids for g in generations}) > 24


def test_abort_ends_one_request_with_its_tokens_so_far(engine, run):
    async def scenario() -> tuple[Generation, Generation]:
        task = await long_running(engine)
        other = asyncio.create_task(sample(engine, 8, name="other"))
        await engine.abort("long")
        await engine.abort("unknown")
        return await task, await other

    aborted, other = run(scenario())
    assert aborted.finish == "abort"
    assert len(aborted.ids) < 400
    assert other.finish in ("length", "stop")


@pytest.mark.parametrize("source", ["disk", "stream"])
def test_after_an_update_logprobs_and_version_are_the_new_weights(engine, run, checkpoints, source):
    async def scenario() -> tuple[Generation, Generation]:
        before = await sample(engine, 24)
        new = checkpoints[1] if source == "disk" else read_tensors(checkpoints[1])
        await engine.update_weights(new, 7)
        return before, await sample(engine, 24)

    before, after = run(scenario())
    assert gap(checkpoints[0], before) < TOLERANCE
    assert gap(checkpoints[1], after) < TOLERANCE
    assert gap(checkpoints[0], after) > 0.1
    assert [s.version for s in before.versions] == [1]
    assert [(s.version, s.start, s.end) for s in after.versions] == [(7, 0, len(after.ids))]
    assert engine.version == 7
    assert after.cached_tokens == 0, "a prefix of the old weights survived the update"


def test_a_request_in_flight_at_an_update_names_the_version_of_every_token(engine, run, checkpoints):
    async def scenario() -> Generation:
        task = await long_running(engine)
        await engine.update_weights(read_tensors(checkpoints[1]), 2)
        return await task

    generation = run(scenario())
    old, new = generation.versions
    assert (old.version, new.version) == (1, 2)
    assert (old.start, new.end) == (0, len(generation.ids))
    assert old.end == new.start
    ids = PROMPT + generation.ids
    for path, span in ((checkpoints[0], old), (checkpoints[1], new)):
        expected = reference_logprobs(path, ids, len(PROMPT))[span.start : span.end]
        drawn = generation.logprobs[span.start : span.end]
        assert max(abs(a - b) for a, b in zip(drawn, expected, strict=True)) < TOLERANCE


def test_a_paused_engine_draws_nothing_and_a_resumed_one_goes_on(engine, run):
    async def scenario() -> tuple[bool, Generation]:
        await engine.pause()
        task = asyncio.create_task(sample(engine, 4))
        await asyncio.sleep(0.5)
        idle = not task.done()
        assert (await engine.health()).paused
        await engine.resume()
        return idle, await task

    idle, generation = run(scenario())
    assert idle
    assert len(generation.ids) > 0


def test_pushed_weights_are_proven_by_checksums(engine, run, checkpoints):
    report = run(push_weights(engine, read_tensors(checkpoints[1]), 3))
    assert report.checked_tensors >= 18
    assert report.version == engine.version == 3


def test_one_corrupted_tensor_fails_the_proof_and_is_named(engine, run, checkpoints):
    """The engine gets a tensor whose last bit was flipped after the trainer hashed it."""

    class Corrupting:
        def __getattr__(self, name):
            return getattr(engine, name)

        async def update_weights(self, source, version):
            await engine.update_weights(corrupted(source), version)

    def corrupted(stream):
        for name, tensor in stream:
            if name == "model.layers.1.self_attn.k_proj.weight":
                tensor = tensor.clone()
                tensor.view(torch.int32)[0, 0] ^= 1
            yield name, tensor

    with pytest.raises(GateError, match=r"1 differ, first model\.layers\.1\.self_attn\.(qkv|k)_proj"):
        run(push_weights(Corrupting(), read_tensors(checkpoints[1]), 4))


def test_ids_outside_the_vocabulary_are_refused_before_they_are_sent(engine, run):
    for bad in (-1, engine.vocab_size, 10**6):
        with pytest.raises(EngineError, match="outside the vocabulary"):
            run(engine.generate((5, bad, 6), Sampling(4), seed=1, request_id="bad"))
        with pytest.raises(EngineError, match="outside the vocabulary"):
            run(engine.score((5, bad, 6), 1))
    assert run(sample(engine, 2)).ids


def test_prompts_longer_than_the_context_are_refused(engine, run):
    with pytest.raises(EngineError, match="context"):
        run(engine.generate((5,) * 500, Sampling(50), seed=1, request_id="long"))


def test_a_request_that_fills_the_context_to_the_last_token_is_served_in_full(engine, run):
    prompt = tuple(5 + i % 300 for i in range(500))
    generation = run(engine.generate(prompt, Sampling(12), seed=1, request_id="full"))
    assert len(generation.ids) == 12


def test_a_misfitting_update_is_refused_and_changes_nothing(engine, run, checkpoints):
    before = run(engine.checksums())
    for name, shape in (("model.norm.weight", (63,)), ("model.nonsense.weight", (64,))):
        with pytest.raises(EngineError, match="refused"):
            run(engine.update_weights([(name, torch.zeros(shape))], 9))
    assert run(engine.checksums()) == before
    assert engine.version == 1
    assert run(sample(engine, 2)).ids


def test_two_engines_with_the_same_checkpoint_hold_the_same_hashes(engine, run, checkpoints):
    async def roundtrip() -> bool:
        first = await engine.checksums()
        await engine.update_weights(checkpoints[1], 2)
        changed = await engine.checksums()
        await engine.update_weights(checkpoints[0], 3)
        return first == await engine.checksums() and first != changed

    assert run(roundtrip())


def test_a_reproducible_engine_repeats_itself_and_says_so_truly(engine, run):
    async def twice() -> list[Generation]:
        return [await sample(engine, 24, seed=s, name=f"s{i}", temperature=2.0) for i, s in enumerate((11, 11, 12))]

    first, again, other = run(twice())
    assert first.ids != other.ids
    if engine.reproducible:
        assert (first.ids, first.logprobs) == (again.ids, again.logprobs)


def test_health_reports_the_version_and_never_raises(engine, run):
    health = run(engine.health())
    assert (health.serving, health.paused, health.version) == (True, False, 1)


def test_a_call_that_outlives_its_deadline_is_an_engine_error(engine, run, monkeypatch):
    for name in ("_timeout_s", "_generate_timeout_s"):
        if hasattr(engine, name):
            monkeypatch.setattr(engine, name, 0.3)

    async def scenario() -> float:
        await engine.pause()
        started = time.monotonic()
        with pytest.raises(EngineError, match="within"):
            await sample(engine, 4, name="late")
        waited = time.monotonic() - started
        await engine.resume()
        return waited

    assert run(scenario()) < 3


@pytest.mark.sglang
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_json_schema_constrains_what_sglang_draws(pool, run, checkpoints):
    from tokenizers import Tokenizer

    schema = json.dumps({"type": "string", "enum": ["green basket"]})
    generation = run(sample(pool.engines[0], 24, json_schema=schema))
    text = Tokenizer.from_file(str(checkpoints[0] / "tokenizer.json")).decode(list(generation.ids))
    assert text.startswith('"green basket"')


def test_json_schema_is_refused_where_it_cannot_be_kept(embedded, run):
    with pytest.raises(EngineError, match="SGLang"):
        run(sample(embedded, 8, json_schema="{}"))
