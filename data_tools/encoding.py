"""Encoding many texts at once: the fast backend (fastokens) and the reference (Hugging Face tokenizers).

Both encode content as plain text: special-token text never becomes a control token. The fast one is trusted only as
far as it is checked (selfcheck.py); the reference is always there to fall back to.
"""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, Protocol

import fastokens
import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

Backend = Literal["auto", "fastokens", "hf"]


class Encoder(Protocol):
    """Encodes batches of content. `version` names library and release, for the manifest."""

    name: str
    version: str

    def encode(self, texts: list[str]) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
        """(ids of all texts back to back, uint32[N]; offsets, int64[len(texts) + 1])."""
        ...


class HFEncoder:
    """The reference: Hugging Face tokenizers."""

    name = "hf"

    def __init__(self, plain: Tokenizer) -> None:
        """`plain` reads special-token text as ordinary text (Renderer.plain)."""
        self.version = f"tokenizers {importlib.metadata.version('tokenizers')}"
        self._tokenizer = plain

    def encode(self, texts: list[str]) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
        encodings = self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        offsets = np.zeros(len(texts) + 1, np.int64)
        np.cumsum([len(e) for e in encodings], out=offsets[1:])
        ids = np.empty(int(offsets[-1]), np.uint32)
        for encoding, start, stop in zip(encodings, offsets[:-1], offsets[1:], strict=True):
            ids[start:stop] = encoding.ids
        return ids, offsets


class FastokensEncoder:
    """fastokens: tens of times faster, ids as one flat buffer. Single-threaded: workers are processes."""

    name = "fastokens"

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.version = f"fastokens {importlib.metadata.version('fastokens')}"
        with _one_cpu():
            self._tokenizer: Any = fastokens.Tokenizer.from_json_str(tokenizer.to_str())
            # The thread pool takes its size from the CPUs that the process may use at its first batch.
            self._tokenizer.encode_batch_flat(["warm up"] * 64)

    def encode(self, texts: list[str]) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
        ids, offsets = self._tokenizer.encode_batch_flat(texts, split_special_tokens=True)
        return np.frombuffer(ids, np.uint32), np.frombuffer(offsets, np.uint64).astype(np.int64)

    def encode_one(self, text: str) -> list[int]:
        """Ids of one text."""
        return self._tokenizer.encode(text, split_special_tokens=True, add_special_tokens=False).ids


@contextmanager
def _one_cpu() -> Iterator[None]:
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
