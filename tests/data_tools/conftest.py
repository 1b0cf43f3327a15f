"""A small tokenizer, and corpora on disk, for the tests of data_tools."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import orjson
import pytest
from tokenizers import Tokenizer

from common.seeds import derive_rng
from data_tools import prepare as prepare_module
from data_tools import units
from data_tools.config import PrepareConfig
from data_tools.renderer import Renderer
from data_tools.selfcheck import adversarial_texts
from data_tools.tokenizer import SPECIAL_TOKENS, save_tokenizer, train_tokenizer

TEXT = (
    "the garden drawer Anna moved apple said believes where "
    "café 한글 👩\u200d💻 didn't 42 I'll [x] \n\n <answer> e\u0301"
)
WORDS = TEXT.split(" ")


def make_text(rng: random.Random, longest: int = 40) -> str:
    return " ".join(rng.choice(WORDS) for _ in range(rng.randint(1, longest)))


def make_rows(count: int, seed: int = 0, *, source: str = "tom_hitom", longest: int = 40) -> list[dict]:
    """Rows with a system message, turns of both sides, and now and then hostile text."""
    rng = derive_rng(seed, "rows")
    hostile = adversarial_texts(SPECIAL_TOKENS, per_kind=4)
    rows = []
    for i in range(count):
        messages = [{"role": "system", "content": make_text(rng, longest)}]
        for _ in range(rng.randint(1, 4)):
            messages.append({"role": "user", "content": make_text(rng, longest)})
            messages.append({"role": "assistant", "content": make_text(rng, longest)})
        if rng.random() < 0.05:
            messages[-1]["content"] = rng.choice(hostile)
        rows.append({"id": f"r{i}", "data_source": source, "messages": messages})
    return rows


def write_jsonl(path: Path, rows: Sequence[dict]) -> Path:
    path.write_bytes(b"".join(orjson.dumps(r) + b"\n" for r in rows))
    return path


@pytest.fixture(scope="session")
def tokenizer_dir(tmp_path_factory) -> Path:
    rng = derive_rng(0, "tokenizer")
    folder = tmp_path_factory.mktemp("tokenizer") / "tok"
    save_tokenizer(train_tokenizer([make_text(rng) for _ in range(500)], 330), folder)
    return folder


@pytest.fixture(scope="session")
def tokenizer(tokenizer_dir) -> Tokenizer:
    return Tokenizer.from_file(str(tokenizer_dir / "tokenizer.json"))


@pytest.fixture(scope="session")
def renderer(tokenizer_dir) -> Renderer:
    return Renderer.load(tokenizer_dir)


@pytest.fixture
def make_config(tmp_path, tokenizer_dir):
    """PrepareConfig for one JSONL file of rows."""

    def make(rows: Sequence[dict] | None = None, **fields) -> PrepareConfig:
        corpus = tmp_path / "corpus.jsonl"
        if rows is not None:
            write_jsonl(corpus, rows)
        given = {"inputs": [{"glob": str(corpus)}], "output": tmp_path / "out" / "shard", "sequence_length": 512}
        return PrepareConfig.model_validate({**given, "tokenizer": tokenizer_dir, **fields})

    return make


@pytest.fixture
def small_units(monkeypatch):
    """Cut the input every 20 kB instead of every MB."""
    real = units.plan_units
    monkeypatch.setattr(prepare_module, "plan_units", lambda files, size: real(files, 20_000))


def shard_bytes(prefix: Path) -> dict[str, bytes]:
    """All data files of a shard (the manifest holds the command, which may differ)."""
    return {
        p.name[len(prefix.name) :]: p.read_bytes()
        for p in sorted(prefix.parent.glob(f"{prefix.name}.*"))
        if p.is_file() and not p.name.endswith(".manifest.json")
    }
