"""Corpus rows of the generated tasks as JSONL files: `data_source`, `messages`, `id`, `extra_info` (DESIGN 4).

Train and held-out files share no story and no situation, because the generators decide by content which part each one
belongs to. Equal configuration gives equal bytes. A failure leaves no partial file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import orjson
from pydantic import Field

from common.config import Config
from common.files import write_bytes
from common.seeds import derive_rng
from envs.tasks.hitom.corpus import CorpusShape, conversations
from envs.tasks.hitom.generator import Part
from envs.tasks.hitom.levels import level
from envs.tasks.negotiate.corpus import dialogues


class GeneratedCorpusConfig(Config):
    """How much to generate, of what."""

    seed: int = 0
    """Of stories and dialogues."""
    level: str = "hitom_mini"
    """Level of the Hi-ToM stories (envs/tasks/hitom/levels.py)."""
    stories: int = Field(default=2000, ge=0)
    """Story conversations in the train part."""
    dialogues: int = Field(default=400, ge=0)
    """Two-person dialogues in the train part; each gives one row per person."""
    heldout_stories: int = Field(default=100, ge=0)
    """Story conversations in the held-out part."""
    heldout_dialogues: int = Field(default=50, ge=0)
    """Dialogues in the held-out part."""
    shape: CorpusShape = CorpusShape()


def write_generated_corpus(folder: Path, config: GeneratedCorpusConfig) -> dict[Part, Path]:
    """Write `train.jsonl` and `heldout.jsonl`; returns their paths."""
    sizes: dict[Part, tuple[int, int]] = {
        "train": (config.stories, config.dialogues),
        "heldout": (config.heldout_stories, config.heldout_dialogues),
    }
    paths = {}
    for part, (stories, count) in sizes.items():
        paths[part] = folder / f"{part}.jsonl"
        write_jsonl(paths[part], corpus_rows(part, stories, count, config))
    return paths


def corpus_rows(part: Part, stories: int, count: int, config: GeneratedCorpusConfig) -> Iterator[dict[str, Any]]:
    """The rows of one part, sources mixed at random."""
    chosen = level(config.level)
    rows = [
        *conversations(part, stories, config.seed, chosen.difficulty, prompt=chosen.prompt, shape=config.shape),
        *dialogues(part, count, config.seed),
    ]
    derive_rng(config.seed, "corpus-order", part).shuffle(rows)
    yield from rows


def write_jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Replace `path` by one row a line, atomically."""
    write_bytes(path, b"".join(orjson.dumps(row) + b"\n" for row in rows))
