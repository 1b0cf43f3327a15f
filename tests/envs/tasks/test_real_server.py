"""Judged tasks against one real SGLang on this machine: it is policy (token-exact), partner and JSON-schema judge."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from data_tools.renderer import Renderer
from envs import registry
from envs.client.client import Client
from envs.client.config import ClientConfig, Endpoint
from envs.engine import Sampling
from envs.judges.model import ModelJudge
from envs.play import play
from envs.players.chat import ChatPlayer
from envs.players.engine import EnginePlayer
from envs.types import Episode, Score
from tests.rl.rollout.conftest import SGLANG_MARKS, TEXT, VOCAB_SIZE

pytestmark = SGLANG_MARKS
CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
WIDTH = 64
PLAYED = {"sotopia": 0, "coser": 0, "mirrorbench": 0, "sim_math": 1}
"""Task and the example that is played (sim_math: the row that names no traits, so that all judges can answer)."""


def talkative_checkpoint(path: Path) -> Path:
    """A random Qwen3 that closes JSON strings and numbers soon, and rarely begins with a bracket.

    All embeddings share their first dimension, which the head reads as a constant: a bias for chosen tokens. Without
    it a random model under a grammar writes one string until its tokens are spent.
    """
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXT * 20, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=special[0], eos_token=special[2])
    fast.chat_template = CHAT_TEMPLATE
    torch.manual_seed(3)
    config = Qwen3Config(
        vocab_size=VOCAB_SIZE,
        hidden_size=WIDTH,
        intermediate_size=96,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,
        max_position_embeddings=16384,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=fast.eos_token_id,
        pad_token_id=fast.pad_token_id,
    )
    model = Qwen3ForCausalLM(config)
    bias = torch.zeros(VOCAB_SIZE)
    for token, ident in fast.get_vocab().items():
        if token in special:
            bias[ident] = -6.0
        elif token in ('"', ",", "}", "]"):
            bias[ident] = 5.0
        elif token[0] in "Ġ[{(" or token in ("Ċ", "ĉ", "č"):
            bias[ident] = -8.0
    with torch.no_grad():
        embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
        embedding.normal_()
        embedding[:, 0] = 5.0
        head.normal_(std=0.1)
        constant = 5.0 / ((25 + WIDTH - 1) / WIDTH) ** 0.5
        head[:, 0] = bias / constant
    model.save_pretrained(path)
    fast.save_pretrained(path)
    return path


@dataclass(frozen=True)
class Served:
    """A running server, as an engine and as an endpoint."""

    engine: Any
    url: str
    key: str
    model: Path


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[asyncio.Runner, Served]]:
    from rl.rollout.config import RolloutConfig
    from rl.rollout.pool import EnginePool

    model = talkative_checkpoint(tmp_path_factory.mktemp("talkative"))
    config = RolloutConfig(kind="sglang", max_context=16000, probe_interval_s=30.0, start_timeout_s=500.0)
    with asyncio.Runner() as runner:
        pool = runner.run(EnginePool.start(model, config, tmp_path_factory.mktemp("run")))
        try:
            yield runner, Served(pool.engines[0], pool.servers[0].url, pool.servers[0].api_key, model)
        finally:
            runner.run(pool.close())


async def one_each(server: Served) -> dict[str, Episode]:
    """One episode of every task, all at once."""
    renderer = Renderer.load(server.model)
    endpoint = Endpoint(
        model="tiny",
        base_url=f"{server.url}/v1",
        api_key_variable="KEY",
        max_tokens_field="max_tokens",
        deadline_s=240.0,
    )
    client = Client(ClientConfig(judge=endpoint, partner=endpoint, critic=endpoint), environment={"KEY": server.key})
    policy = EnginePlayer(server.engine, renderer, Sampling(max_tokens=16))
    specs = {name: registry.get(name) for name in PLAYED}
    judge = ModelJudge(client, {j.id: j for spec in specs.values() for j in spec.judges}.values())

    async def one(name: str) -> Episode:
        spec = specs[name]
        assert spec.examples is not None
        env, row = spec.env("strict"), spec.examples()[PLAYED[name]]
        players = {seat: policy if seat in spec.seats else ChatPlayer(client) for seat in env.seats}
        return await play(
            env,
            row,
            players,
            judge=judge,
            learnable=spec.seats,
            seed=5,
            limits=replace(spec.limits, max_tokens=16),
            want_feedback=name == "mirrorbench",
        )

    try:
        return dict(zip(PLAYED, await asyncio.gather(*map(one, PLAYED)), strict=True))
    finally:
        await client.close()


def test_tasks_with_partner_and_judge_play_and_score_on_one_real_server(
    served: tuple[asyncio.Runner, Served],
) -> None:
    runner, server = served
    for name, episode in runner.run(one_each(server)).items():
        spec = registry.get(name)
        outcomes = [episode.outcomes[seat] for seat in spec.seats]
        assert all(isinstance(o, Score) and not o.format_error for o in outcomes), (name, outcomes)
        judged = [c for c in episode.judge_calls if c.role == "judge"]
        assert judged and all(c.request["response_format"]["type"] == "json_schema" for c in judged), name
        assert any(c.role == "partner" and c.reply for c in episode.judge_calls), name
        spoke = [seat for seat in spec.seats if any(say.seat == seat for say in episode.says)]
        assert spoke and all(episode.traces[seat].sampled > 0 for seat in spoke), name
        if name == "mirrorbench":
            assert episode.feedback["user"].sees_gold and episode.feedback["user"].text
