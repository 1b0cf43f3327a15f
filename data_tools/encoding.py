"""Encoding many texts at once: the fast backend (fastokens) and the reference (Hugging Face tokenizers).

Both encode content as plain text: special-token text never becomes a control token. The fast one is trusted only as
far as it is checked (selfcheck.py); the reference is always there to fall back to.
"""

from __future__ import annotations

import importlib.metadata
import itertools
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import fastokens
import numpy as np
import orjson
from numpy.typing import NDArray
from tokenizers import Tokenizer

from data_tools.joined_texts import SEPARATOR, find_texts, join_texts
from data_tools.texts import Texts

Backend = Literal["auto", "fastokens", "hf"]


@dataclass(frozen=True)
class Encoded:
    """Ids of N texts, in one array in any order; other ids may stand between them."""

    ids: NDArray[np.uint32]
    starts: NDArray[np.int64]
    """int64[N], where each text's ids begin"""
    stops: NDArray[np.int64]
    """int64[N]"""

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, i: int) -> NDArray[np.uint32]:
        return self.ids[self.starts[i] : self.stops[i]]


class Encoder(Protocol):
    """Encodes batches of content. `version` names library and release, for the manifest."""

    name: str
    version: str

    def encode(self, texts: Sequence[str]) -> Encoded:
        """Ids of the texts."""
        ...


class HFEncoder:
    """The reference: Hugging Face tokenizers."""

    name = "hf"

    def __init__(self, plain: Tokenizer) -> None:
        """`plain` reads special-token text as ordinary text (Renderer.plain)."""
        self.version = f"tokenizers {importlib.metadata.version('tokenizers')}"
        self._tokenizer = plain

    def encode(self, texts: Sequence[str]) -> Encoded:
        encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        offsets = np.zeros(len(texts) + 1, np.int64)
        np.cumsum([len(e) for e in encodings], out=offsets[1:])
        ids = np.empty(int(offsets[-1]), np.uint32)
        for encoding, start, stop in zip(encodings, offsets[:-1], offsets[1:], strict=True):
            ids[start:stop] = encoding.ids
        return Encoded(ids, offsets[:-1], offsets[1:])


class FastokensEncoder:
    """fastokens: tens of times faster, ids as one flat buffer. Single-threaded: workers are processes.

    Messages are short, and each text given to the library costs some allocations. So those in ASCII are joined by a
    separator, a control token of this instance alone that the library never looks across, and the ids cut at it.
    """

    name = "fastokens"

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.version = f"fastokens {importlib.metadata.version('fastokens')}"
        described, self._separator_id = _with_separator_only(tokenizer)
        with one_cpu():
            self.library: Any = fastokens.Tokenizer.from_json_str(described)
            # The thread pool takes its size from the CPUs that the process may use at its first batch.
            self.library.encode_batch_flat(["warm up"] * 64)

    def encode(self, texts: Sequence[str]) -> Encoded:
        texts = Texts.of(texts)
        joined, ends, alone = join_texts(texts.data, texts.offsets)
        pieces = [str(joined[start:stop].data, "ascii") for start, stop in itertools.pairwise([0, *ends.tolist()])]
        others = list(texts.take(np.flatnonzero(alone)))
        if any(SEPARATOR in text for text in others):  # the separator is text in there
            ids, offsets = self._encode(pieces)
            other_ids, other_offsets = self._encode(others, split_special_tokens=True)
            ids, offsets = np.concatenate([ids, other_ids]), np.concatenate([offsets, len(ids) + other_offsets[1:]])
        else:
            ids, offsets = self._encode([*pieces, *others])
        separators = np.flatnonzero(ids[: offsets[len(pieces)]] == self._separator_id)
        return Encoded(ids, *find_texts(separators, offsets[len(pieces) :], alone))

    def encode_one(self, text: str) -> list[int]:
        """Ids of one text."""
        return self.library.encode(text, split_special_tokens=True, add_special_tokens=False).ids

    def _encode(self, texts: list[str], **how: bool) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
        """Ids of all texts back to back, and where those of each begin."""
        ids, offsets = self.library.encode_batch_flat(texts, **how)
        return np.frombuffer(ids, np.uint32), np.frombuffer(offsets, np.uint64).astype(np.int64)


def _with_separator_only(tokenizer: Tokenizer) -> tuple[str, int]:
    """The tokenizer as JSON with the separator as its only special token, and that token's id, that of no other one.

    Special-token text is text then. The other added tokens stay: Hugging Face finds them in plain text too.
    """
    described = orjson.loads(tokenizer.to_str())
    added, model = described["added_tokens"], described["model"]
    unused = 1 + max([*model["vocab"].values(), *(token["id"] for token in added)])
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    separator = {"id": unused, "content": SEPARATOR, "special": True, **flags}
    described["added_tokens"] = [*(token for token in added if not token["special"]), separator]
    # The older notation of a merge, where it is unambiguous: fastokens reads 150,000 of them 0.3 s faster.
    if not any(" " in token for token in model["vocab"]):
        model["merges"] = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    return orjson.dumps(described).decode(), unused


@contextmanager
def reference_without_threads() -> Iterator[None]:
    """Let Hugging Face tokenizers start no threads in this process and those it forks: they do not survive a fork."""
    name = "TOKENIZERS_PARALLELISM"
    before = os.environ.get(name)
    os.environ[name] = "false"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


@contextmanager
def one_cpu() -> Iterator[None]:
    """Let this process see one CPU for a moment (where the system can say so)."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)
