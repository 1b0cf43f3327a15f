"""What the trainer needs of a rollout engine: the episode's `Engine` plus control over weights and requests.

Runs on the rank that owns the rollout side (rank 0). Implementations: `embedded.EmbeddedEngine` (transformers, in
process), `sglang.SGLangEngine` (HTTP), `pool.EnginePool` (several engines as one).

Weights arrive by `update_weights`: from an HF directory, or as a stream of (HF name, tensor). Whatever the source,
an update (1) retracts the requests in flight unless the caller paused otherwise: their tokens so far are kept,
their prefix is recomputed under the new weights; (2) drops every cached prefix of the old weights; (3) stamps
`version`, which `Generation.versions` then names token by token; (4) leaves the engine paused if it was, running if
it was. `rl.weight_sync` drives it and proves the result by checksums. Failures raise `EngineError`; an engine whose
update failed half-way holds no usable weights (`health().serving` is False) until an update succeeds.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from envs.engine import Engine, EngineError, Sampling

if TYPE_CHECKING:
    import torch

PauseMode = Literal["retract", "in_place", "abort"]
"""What happens to requests in flight: recomputed on resume, kept with their old KV cache, or ended now."""

ChecksumLayout = Literal["hf", "sglang"]
"""How an engine names and fuses the tensors it hashes (see `rl.weight_sync.checksum`)."""

StreamTransport = Literal["tensor", "distributed"]
NamedTensor = tuple[str, "torch.Tensor"]
Bucket = Sequence[NamedTensor]
BUCKET_BYTES = 256 << 20


@dataclass(frozen=True)
class Health:
    """One look at an engine. `detail` says why it does not serve."""

    serving: bool
    paused: bool
    version: int
    detail: str = ""


class RolloutEngine(Engine, Protocol):
    """An engine whose weights and requests are controlled. Safe for concurrent calls from one event loop."""

    vocab_size: int
    stream_transports: tuple[StreamTransport, ...]
    """How this engine can take a stream of tensors; the first is its default."""
    stream_transport: StreamTransport
    """How it takes the next one: `tensor` (in process, or handles to memory of this machine) or `distributed`
    (broadcast to its server)."""
    bucket_bytes: int
    """Most bytes of a stream that travel at once."""
    checksum_layout: ChecksumLayout | None
    """None: its checksums cannot be computed on the trainer's side (`rl.weight_sync.checksum` says when)."""
    version: int
    """Version of the weights that the next token is drawn from."""

    async def update_weights(self, source: Path | Iterable[NamedTensor], version: int) -> None:
        """Load an HF directory, or a stream of (HF name, tensor), and stamp it `version`."""
        ...

    async def begin_update(self) -> None:
        """Open a streamed update: retract requests, accept buckets."""
        ...

    async def load_bucket(self, bucket: Bucket, *, final_version: int | None = None) -> None:
        """Load some tensors; the last bucket carries the version. Unknown names and wrong shapes are refused."""
        ...

    async def end_update(self) -> None:
        """Close a streamed update and resume."""
        ...

    async def pause(self, mode: PauseMode = "retract") -> None:
        """Stop drawing tokens. New requests wait."""
        ...

    async def resume(self) -> None: ...

    async def abort(self, request_id: str | None = None) -> None:
        """End one request, or all, with finish "abort" and the tokens so far. Unknown ids are ignored."""
        ...

    async def flush(self) -> None:
        """Drop cached prefixes."""
        ...

    async def health(self) -> Health:
        """Never raises and never disturbs the engine."""
        ...

    async def checksums(self) -> Mapping[str, str]:
        """One hash per tensor that the engine holds, named and fused as `checksum_layout` says."""
        ...

    async def close(self) -> None: ...


class StreamedUpdates(ABC):
    """`update_weights` for streams, on top of begin / load / end."""

    bucket_bytes: int = BUCKET_BYTES

    @abstractmethod
    async def begin_update(self) -> None: ...

    @abstractmethod
    async def load_bucket(self, bucket: Bucket, *, final_version: int | None = None) -> None: ...

    @abstractmethod
    async def end_update(self) -> None: ...

    async def _update_from_stream(self, tensors: Iterable[NamedTensor], version: int) -> None:
        stream = buckets(tensors, self.bucket_bytes)
        bucket = next(stream, None)
        if bucket is None:
            raise EngineError("a weight update without tensors")
        await self.begin_update()
        try:
            while bucket is not None:
                following = next(stream, None)
                await self.load_bucket(bucket, final_version=version if following is None else None)
                bucket = following
        finally:
            await self.end_update()


def buckets(tensors: Iterable[NamedTensor], max_bytes: int = BUCKET_BYTES) -> Iterator[list[NamedTensor]]:
    """Group a stream into buckets of at most `max_bytes` (a larger tensor travels alone), in order."""
    bucket: list[NamedTensor] = []
    size = 0
    for name, tensor in tensors:
        if bucket and size + tensor.nbytes > max_bytes:
            yield bucket
            bucket, size = [], 0
        bucket.append((name, tensor))
        size += tensor.nbytes
    if bucket:
        yield bucket


def check_request(ids: Sequence[int], sampling: Sampling | None, *, vocab_size: int, max_context: int) -> None:
    """Refuse what an engine cannot survive (an id outside the vocabulary kills an SGLang server) or fulfil."""
    if not ids:
        raise EngineError("empty prompt")
    low, high = min(ids), max(ids)
    if low < 0 or high >= vocab_size:
        bad = low if low < 0 else high
        raise EngineError(f"token id {bad} is outside the vocabulary of {vocab_size}")
    length = len(ids)
    if sampling is not None:
        if sampling.max_tokens < 1:
            raise EngineError(f"max_tokens is {sampling.max_tokens}: nothing to draw")
        if sampling.temperature < 0 or not 0 < sampling.top_p <= 1 or sampling.top_k == 0 or sampling.top_k < -1:
            raise EngineError(f"sampling out of range: {sampling}")
        length += sampling.max_tokens
    if length > max_context:
        raise EngineError(f"{length} tokens (prompt and completion) exceed the engine's context of {max_context}")
