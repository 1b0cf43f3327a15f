"""What an episode needs of a rollout engine: token ids in; ids and log-probs out. Never text.

Engines live in `rl.rollout` (SGLang over HTTP, transformers in process); this protocol is here so that envs
and eval need neither. Log-prob conventions are SGLang's (spec: sglang 1): output log-probs are at the sampling
temperature over the full vocabulary; scored (prompt) log-probs are at temperature 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

FinishReason = Literal["stop", "length", "abort"]


class EngineError(Exception):
    """The engine did not answer, or not in time. Becomes Unscored(engine_failed), never a score."""


@dataclass(frozen=True)
class Sampling:
    """How to draw tokens. temperature 0 is greedy.

    Generation ends at any of `stop_ids`, and at the model's own end tokens (config.json, generation_config.json)
    whatever `stop_ids` says; the token that ended it is kept in the output.
    """

    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = -1
    stop_ids: tuple[int, ...] = ()
    json_schema: str | None = None


@dataclass(frozen=True, slots=True)
class VersionSpan:
    """Output tokens [start, end) were drawn from weights `version`."""

    version: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Generation:
    """One completion. `ids` includes the stop token when finish == "stop"."""

    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish: FinishReason
    versions: tuple[VersionSpan, ...]
    cached_tokens: int = 0


class Engine(Protocol):
    """The sampling side of a rollout engine. Implementations are safe for concurrent calls."""

    name: str
    reproducible: bool
    """Same weights, prompt, sampling and seed give the same tokens, whatever else runs beside it."""

    async def generate(
        self, prompt_ids: tuple[int, ...], sampling: Sampling, *, seed: int, request_id: str
    ) -> Generation:
        """Sample one completion. Raises EngineError."""
        ...

    async def score(self, ids: tuple[int, ...], start: int) -> tuple[float, ...]:
        """log p(ids[t] | ids[:t]) at temperature 1 for t in [start, len(ids)), start >= 1. Raises EngineError."""
        ...
