"""A small real corpus, tokenizer and packed shards, made by data_tools."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from data_tools.config import InputConfig, PrepareConfig
from data_tools.prepare import prepare
from data_tools.routing import SourceRule

WORDS = "the cup is in box room red blue she he saw left put went back where now looks said yes no".split()  # noqa: SIM905
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


@dataclass(frozen=True)
class Corpus:
    """Where everything is."""

    tokenizer: Path
    train: Path
    other: Path
    """A second source."""


def make_corpus(root: Path, *, sequence_length: int, rows: int = 200) -> Corpus:
    """Two packed shards of short conversations; `other` has a third of the rows."""
    tokenizer = make_tokenizer(root / "tokenizer")
    prefixes = {}
    for name, count, seed in (("train", rows, 1), ("other", rows // 3, 2)):
        file = root / f"{name}.jsonl"
        rng = random.Random(seed)
        with file.open("w") as f:
            for _ in range(count):
                f.write(json.dumps({"data_source": name, "messages": _conversation(rng)}) + "\n")
        prefixes[name] = root / name / "shard"
        prepare(
            PrepareConfig(
                inputs=(InputConfig(glob=str(file)),),
                tokenizer=tokenizer,
                output=prefixes[name],
                sequence_length=sequence_length,
                backend="hf",
                sources={name: SourceRule(swap=False)},
            )
        )
    return Corpus(tokenizer, prefixes["train"], prefixes["other"])


def make_tokenizer(folder: Path) -> Path:
    """A byte-level BPE of 290 tokens with ChatML's special tokens."""
    folder.mkdir()
    model = Tokenizer(models.BPE())
    model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    model.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=290, special_tokens=SPECIALS, initial_alphabet=alphabet)
    model.train_from_iterator(WORDS, trainer)
    model.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def _conversation(rng: random.Random) -> list[dict[str, str]]:
    def say(n: int) -> str:
        return " ".join(rng.choices(WORDS, k=n))

    return [
        {"role": "system", "content": say(6)},
        {"role": "user", "content": say(rng.randint(3, 9))},
        {"role": "assistant", "content": say(rng.randint(2, 8))},
    ]
