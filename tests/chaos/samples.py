"""Small corpora, a tokenizer and a model for the scenarios."""

from __future__ import annotations

import random
from pathlib import Path

import orjson

WORDS = "the cup is in box room red blue she he saw left put went back where now looks said yes no".split()  # noqa: SIM905


def write_rows(path: Path, count: int, *, seed: int = 0, words: int = 60, system: bool = True) -> Path:
    """`count` conversations as JSON lines."""
    rng = random.Random(seed)

    def say(most: int) -> str:
        return " ".join(rng.choices(WORDS, k=rng.randint(3, most))) + f" {rng.randrange(10**6)}"

    with path.open("wb") as f:
        for i in range(count):
            messages = [{"role": "system", "content": say(words)}] if system else []
            for _ in range(rng.randint(1, 4)):
                messages.append({"role": "user", "content": say(words)})
                messages.append({"role": "assistant", "content": say(words)})
            f.write(orjson.dumps({"id": f"r{i}", "data_source": "talk", "messages": messages}) + b"\n")
    return path


ROUTING = "talk: {swap: false}\n"
