"""A small real corpus, tokenizer and packed shard, made by data_tools, shared by the tests of this folder."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from data_tools.config import InputConfig, PrepareConfig
from data_tools.prepare import prepare
from data_tools.routing import SourceRule
from megatron_osim.config import ParallelConfig
from megatron_osim.runtime import Ranks, initialize, shutdown

SEQUENCE_LENGTH = 128
WORDS = "the cup is in box room red blue she he saw left put went back where now looks said yes no".split()  # noqa: SIM905


@dataclass(frozen=True)
class Corpus:
    """Where everything is."""

    tokenizer: Path
    train: Path
    other: Path
    """A second source."""


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Two packed shards of short conversations."""
    root = tmp_path_factory.mktemp("corpus")
    tokenizer = root / "tokenizer"
    tokenizer.mkdir()
    model = Tokenizer(models.BPE())
    model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    model.decoder = decoders.ByteLevel()
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=290, special_tokens=specials, initial_alphabet=alphabet)
    model.train_from_iterator(WORDS, trainer)
    model.save(str(tokenizer / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    (tokenizer / "tokenizer_config.json").write_text(json.dumps(config))
    prefixes = {}
    for name, rows, seed in (("train", 200, 1), ("other", 60, 2)):
        file = root / f"{name}.jsonl"
        rng = random.Random(seed)
        with file.open("w") as f:
            for _ in range(rows):
                f.write(json.dumps({"data_source": name, "messages": _conversation(rng)}) + "\n")
        prepare(
            PrepareConfig(
                inputs=(InputConfig(glob=str(file)),),
                tokenizer=tokenizer,
                output=root / name / "shard",
                sequence_length=SEQUENCE_LENGTH,
                on_long="drop",
                backend="hf",
                sources={name: SourceRule(swap=False)},
            )
        )
        prefixes[name] = root / name / "shard"
    return Corpus(tokenizer, prefixes["train"], prefixes["other"])


def _conversation(rng: random.Random) -> list[dict[str, str]]:
    def say(n: int) -> str:
        return " ".join(rng.choices(WORDS, k=n))

    return [
        {"role": "system", "content": say(6)},
        {"role": "user", "content": say(rng.randint(3, 9))},
        {"role": "assistant", "content": say(rng.randint(2, 8))},
    ]


@pytest.fixture(scope="session")
def single(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ranks]:
    """This process as a job of one rank."""
    rendezvous = tmp_path_factory.mktemp("single") / "rendezvous"
    yield initialize(ParallelConfig(), rendezvous=rendezvous.as_uri())
    shutdown()
