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
from typing import Any, Literal, Protocol

import fastokens
import numpy as np
import orjson
from numpy.typing import NDArray
from tokenizers import Tokenizer

from data_tools.joined_texts import SEPARATOR, cut_ids, join_texts
from data_tools.texts import Texts

Backend = Literal["auto", "fastokens", "hf"]


class Encoder(Protocol):
    """Encodes batches of content. `version` names library and release, for the manifest."""

    name: str
    version: str

    def encode(self, texts: Sequence[str]) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
        """(ids of all texts back to back, uint32[N]; offsets, int64[len(texts) + 1])."""
        ...


class HFEncoder:
    """The reference: Hugging Face tokenizers."""

    name = "hf"

    def __init__(self, plain: Tokenizer) -> None:
        """`plain` reads special-token text as ordinary text (Renderer.plain)."""
        self.version = f"tokenizers {importlib.metadata.version('tokenizers')}"
        self._tokenizer = plain

    def encode(self, texts: Sequence[str]) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
        encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        offsets = np.zeros(len(texts) + 1, np.int64)
        np.cumsum([len(e) for e in encodings], out=offsets[1:])
        ids = np.empty(int(offsets[-1]), np.uint32)
        for encoding, start, stop in zip(encodings, offsets[:-1], offsets[1:], strict=True):
            ids[start:stop] = encoding.ids
        return ids, offsets


class FastokensEncoder:
    """fastokens: tens of times faster, ids as one flat buffer. Single-threaded: workers are processes.

    Messages are short, and each text given to the library costs some allocations. So those in ASCII are joined by a
    separator, a control token of this instance alone that the library never looks across, and the ids cut at it.
    """

    name = "fastokens"

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.version = f"fastokens {importlib.metadata.version('fastokens')}"
        described, self._separator_id = _with_separator_only(tokenizer.to_str())
        with one_cpu():
            self.library: Any = fastokens.Tokenizer.from_json_str(described)
            # The thread pool takes its size from the CPUs that the process may use at its first batch.
            self.library.encode_batch_flat(["warm up"] * 64)

    def encode(self, texts: Sequence[str]) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
        texts = Texts.of(texts)
        joined, ends, alone = join_texts(texts.data, texts.offsets)
        pieces = [str(joined[start:stop].data, "ascii") for start, stop in itertools.pairwise([0, *ends.tolist()])]
        others = list(texts.take(np.flatnonzero(alone)))
        joined_ids, _ = self._encode(pieces, plain=False)
        other_ids, other_offsets = self._encode(others, plain=any(SEPARATOR in text for text in others))
        return cut_ids(joined_ids, self._separator_id, other_ids, other_offsets, alone)

    def encode_one(self, text: str) -> list[int]:
        """Ids of one text."""
        return self.library.encode(text, split_special_tokens=True, add_special_tokens=False).ids

    def _encode(self, texts: list[str], *, plain: bool) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
        """plain: a separator is text."""
        ids, offsets = self.library.encode_batch_flat(texts, split_special_tokens=plain)
        return np.frombuffer(ids, np.uint32), np.frombuffer(offsets, np.uint64).astype(np.int64)


def _with_separator_only(tokenizer_json: str) -> tuple[str, int]:
    """The tokenizer with the separator as its only special token, and that token's id, which no other one has.

    Special-token text is text then. The other added tokens stay: Hugging Face finds them in plain text too.
    """
    tokenizer = orjson.loads(tokenizer_json)
    added = tokenizer["added_tokens"]
    unused = 1 + max([*tokenizer["model"]["vocab"].values(), *(token["id"] for token in added)])
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    separator = {"id": unused, "content": SEPARATOR, "special": True, **flags}
    tokenizer["added_tokens"] = [*(token for token in added if not token["special"]), separator]
    return orjson.dumps(tokenizer).decode(), unused


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
