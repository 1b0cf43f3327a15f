"""Tiny HF checkpoints made by the tests themselves, and the engines that the contract suite runs against."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from rl.rollout.base import RolloutEngine
from rl.rollout.config import RolloutConfig

TEXT = [
    "Anne put the ball in the green basket and left the room.",
    "While she was away, Sally moved the ball to the red box.",
    "Where will Anne look for the ball? <answer>green basket</answer>",
    "I told you yesterday that the meeting was moved, didn't I?",
]
VOCAB_SIZE = 331


def write_checkpoint(path: Path, seed: int) -> Path:
    """A random Qwen3 model (GQA, QK-norm, tied embeddings) with a byte-level BPE tokenizer, as an HF export."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXT * 20, trainer)
    # No end-of-sequence token: a request runs as long as a test asks, unless the test names a stop id.
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<|endoftext|>")
    assert len(fast) == VOCAB_SIZE
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=VOCAB_SIZE,
        hidden_size=64,
        intermediate_size=160,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=fast.pad_token_id,
    )
    model = Qwen3ForCausalLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(4.0)  # logits that prefer some tokens: greedy and sampling differ, ties do not occur
    model.save_pretrained(path)
    fast.save_pretrained(path)
    return path


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two checkpoints of one architecture with different weights."""
    folder = tmp_path_factory.mktemp("checkpoints")
    return write_checkpoint(folder / "a", seed=1), write_checkpoint(folder / "b", seed=2)


@pytest.fixture(scope="session")
def runner() -> Iterator[asyncio.Runner]:
    """One event loop for the session: connections and supervision outlive a test, as they do in a run."""
    with asyncio.Runner() as one:
        yield one


@pytest.fixture(scope="session")
def pool(checkpoints: tuple[Path, Path], runner: asyncio.Runner, tmp_path_factory: pytest.TempPathFactory):
    """One real SGLang server under supervision, started once (tests reset it by a weight update)."""
    from rl.rollout.pool import EnginePool

    config = RolloutConfig(kind="sglang", max_context=512, probe_interval_s=2.0, start_timeout_s=500.0)
    started = runner.run(EnginePool.start(checkpoints[0], config, tmp_path_factory.mktemp("run")))
    yield started
    runner.run(started.close())


@pytest.fixture(scope="session")
def embedded(checkpoints: tuple[Path, Path], runner: asyncio.Runner):
    from rl.rollout.embedded import EmbeddedEngine

    engine = EmbeddedEngine(checkpoints[0], max_context=512)
    yield engine
    runner.run(engine.close())


SGLANG_MARKS = [pytest.mark.sglang, pytest.mark.slow, pytest.mark.timeout(600)]
"""A server imports for 20 s on a quiet machine and for minutes on a crowded one."""


@pytest.fixture(params=["embedded", pytest.param("sglang", marks=SGLANG_MARKS)])
def engine(request: pytest.FixtureRequest, checkpoints: tuple[Path, Path], runner: asyncio.Runner) -> RolloutEngine:
    """Each engine kind in turn, holding the first checkpoint as version 1, with nothing cached."""
    if request.param == "embedded":
        one: RolloutEngine = request.getfixturevalue("embedded")
    else:
        one = request.getfixturevalue("pool").engines[0]
    runner.run(one.update_weights(checkpoints[0], 1))
    return one
