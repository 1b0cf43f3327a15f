"""EmbeddedEngine: a transformers model in this process, for machines without SGLang and for exact-resume tests.

Runs one thread per engine on the rank that owns the rollout side; the thread owns the model, everything else talks
to it through futures, so the engine may be used from any number of event loops. Requests are batched continuously.
`reproducible` is True: the tokens of a request depend only on weights, prompt, sampling and seed (`slots` says why,
and measures it at start). Log-probs, finish reasons and end-of-sequence ids follow SGLang: the model's own end
tokens end a generation too. json_schema is SGLang's alone: refused here. A failure inside the thread fails the
requests it touched with EngineError; the thread lives on. Logits that are not finite fail their request.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import torch
from transformers import AttentionInterface

from envs.engine import EngineError, FinishReason, Generation, Sampling, VersionSpan
from megatron_osim.vector_math import choose_kernels
from rl.rollout.base import (
    Bucket,
    ChecksumLayout,
    Health,
    NamedTensor,
    PauseMode,
    StreamedUpdates,
    StreamTransport,
    check_request,
)
from rl.rollout.checkpoint import load_model, read_tensors, stop_ids_of
from rl.rollout.draw import draw, log_probs, uniform
from rl.rollout.slots import SlotModel, grouped_attention, span
from rl.weight_sync.checksum import tensor_checksum

T = TypeVar("T")
ATTENTION = "osim_grouped"
DEFAULT_MAX_CONTEXT = 2048
CLOSE_TIMEOUT_S = 30.0


@dataclass
class _Request:
    id: str
    prompt: tuple[int, ...]
    sampling: Sampling
    seed: int
    future: Future[Generation] = field(default_factory=Future)
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    versions: list[int] = field(default_factory=list)
    """Weight version of each id."""
    cached_tokens: int = 0
    slot: int = -1

    @property
    def position(self) -> int:
        """Where the newest id goes in the cache."""
        return len(self.prompt) + len(self.ids) - 1


class EmbeddedEngine(StreamedUpdates):
    """See the module's docstring. `timeout_s` bounds every call that waits for the engine's thread."""

    name = "embedded"
    stream_transports: tuple[StreamTransport, ...] = ("tensor",)
    stream_transport: StreamTransport = "tensor"
    checksum_layout: ChecksumLayout | None = "hf"

    def __init__(
        self,
        model_path: Path,
        *,
        version: int = 0,
        max_context: int = DEFAULT_MAX_CONTEXT,
        device: str = "cpu",
        timeout_s: float = 600.0,
    ) -> None:
        choose_kernels()
        AttentionInterface.register(ATTENTION, grouped_attention)
        model = load_model(model_path, device=device, attention=ATTENTION)
        self.version = version
        self.vocab_size: int = model.config.vocab_size
        self.max_context = min(max_context, model.config.max_position_embeddings)
        self._end_ids = stop_ids_of(model_path)
        self._parameters = dict(model.named_parameters())
        self._timeout_s = timeout_s
        self._core = SlotModel(model, max_context=self.max_context)
        self._free = list(range(self._core.slots))
        self._active: dict[str, _Request] = {}
        self._waiting: deque[_Request] = deque()
        self._commands: deque[Callable[[], None]] = deque()
        self._paused = False
        self._updating = False
        self._broken = ""
        self._closed = False
        self._wake = threading.Condition()
        with torch.inference_mode():
            self._core.check_rows()
        self.reproducible = True
        self._thread = threading.Thread(target=self._run, name="embedded-engine", daemon=True)
        self._thread.start()

    # The caller's side

    async def generate(
        self, prompt_ids: tuple[int, ...], sampling: Sampling, *, seed: int, request_id: str
    ) -> Generation:
        """Sample one completion. Cancelling the call frees its slot."""
        check_request(prompt_ids, sampling, vocab_size=self.vocab_size, max_context=self.max_context)
        if sampling.json_schema is not None:
            raise EngineError("json_schema needs SGLang: the embedded engine has no constrained decoding")
        if self._broken:
            raise EngineError(self._broken)
        request = _Request(request_id, tuple(prompt_ids), sampling, seed)
        with self._wake:
            self._check_open()
            if request_id in self._active or any(r.id == request_id for r in self._waiting):
                raise EngineError(f"request id {request_id!r} is in use")
            self._waiting.append(request)
            self._wake.notify()
        return await self._result(request.future)

    async def score(self, ids: tuple[int, ...], start: int) -> tuple[float, ...]:
        check_request(ids, None, vocab_size=self.vocab_size, max_context=self.max_context)
        if not 1 <= start <= len(ids):
            raise EngineError(f"score from {start} of {len(ids)} ids: start is at least 1")
        return tuple(await self._call(lambda: self._core.score(ids, start))) if start < len(ids) else ()

    async def update_weights(self, source: Path | Iterable[NamedTensor], version: int) -> None:
        if not isinstance(source, Path):
            return await self._update_from_stream(source, version)
        tensors = dict(read_tensors(source))
        missing = sorted(self._parameters.keys() - tensors.keys())
        if missing:
            raise EngineError(f"{source} lacks {len(missing)} tensors, first {missing[0]}")
        return await self._update_from_stream(tensors.items(), version)

    async def begin_update(self) -> None:
        await self._call(self._begin_update)

    async def load_bucket(self, bucket: Bucket, *, final_version: int | None = None) -> None:
        await self._call(lambda: self._load(bucket, final_version))

    async def end_update(self) -> None:
        await self._call(self._end_update)

    async def pause(self, mode: PauseMode = "retract") -> None:
        def stop() -> None:
            self._paused = True
            if mode != "in_place":
                self._retract()
            if mode == "abort":
                self._finish_waiting()

        await self._call(stop)

    async def resume(self) -> None:
        def go() -> None:
            self._paused = False

        await self._call(go)

    async def abort(self, request_id: str | None = None) -> None:
        def end() -> None:
            for request in [*self._active.values(), *self._waiting]:
                if request_id in (None, request.id):
                    self._finish(request, "abort")

        await self._call(end)

    async def flush(self) -> None:
        await self._call(self._core.clear_prefixes)

    async def health(self) -> Health:
        alive = self._thread.is_alive() and not self._closed
        detail = self._broken or ("" if alive else "closed")
        return Health(serving=alive and not self._broken, paused=self._paused, version=self.version, detail=detail)

    async def checksums(self) -> Mapping[str, str]:
        return await self._call(lambda: {name: tensor_checksum(p) for name, p in self._parameters.items()})

    async def close(self) -> None:
        """End the thread; requests in flight fail with EngineError."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        await asyncio.to_thread(self._thread.join, CLOSE_TIMEOUT_S)

    def _check_open(self) -> None:
        if self._closed:
            raise EngineError("the engine is closed")

    async def _call(self, work: Callable[[], T]) -> T:
        """Run `work` in the engine's thread, between two steps."""
        future: Future[T] = Future()

        def command() -> None:
            _settle(future, work)

        with self._wake:
            self._check_open()
            self._commands.append(command)
            self._wake.notify()
        return await self._result(future)

    async def _result(self, future: Future[T]) -> T:
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), self._timeout_s)
        except TimeoutError:
            raise EngineError(f"the embedded engine did not answer within {self._timeout_s:g} s") from None

    # The thread's side

    def _run(self) -> None:
        with torch.inference_mode():
            while self._wait_for_work():
                while self._commands:
                    self._commands.popleft()()
                if not self._held:
                    self._step()
        for request in [*self._active.values(), *self._waiting]:
            with contextlib.suppress(InvalidStateError):
                request.future.set_exception(EngineError("the engine was closed"))

    def _wait_for_work(self) -> bool:
        with self._wake:
            self._wake.wait_for(
                lambda: self._closed or self._commands or (not self._held and (self._active or self._waiting))
            )
            return not self._closed

    @property
    def _held(self) -> bool:
        return self._paused or self._updating

    def _step(self) -> None:
        """Admit what fits, then draw one token for every active request."""
        for request in [r for r in (*self._active.values(), *self._waiting) if r.future.cancelled()]:
            self._release(request)
        while self._free and self._waiting and not self._commands:
            self._admit(self._waiting.popleft())
        by_span: dict[int, list[_Request]] = {}
        for request in self._active.values():
            by_span.setdefault(span(request.position), []).append(request)
        for group in by_span.values():
            self._decode(group)

    def _admit(self, request: _Request) -> None:
        request.slot = self._free.pop(0)
        self._active[request.id] = request
        with self._failing([request]):
            logits_V, cached = self._core.prefill(request.slot, [*request.prompt, *request.ids])
            request.cached_tokens = request.cached_tokens or min(cached, len(request.prompt) - 1)
            self._draw([request], logits_V.unsqueeze(0), [0])

    def _decode(self, group: list[_Request]) -> None:
        """One forward pass for the requests of one span."""
        with self._failing(group):
            by_slot = {request.slot: request for request in group}
            size = next((s for s in self._core.run_sizes if s > max(by_slot)), self._core.run_sizes[-1])
            batches = [sorted(by_slot)] if size > 1 else [[slot] for slot in sorted(by_slot)]
            for active in batches:
                tokens, positions = [0] * self._core.slots, [0] * self._core.slots
                for slot in active:
                    tokens[slot], positions[slot] = by_slot[slot].ids[-1], by_slot[slot].position
                logits_BV = self._core.decode(tokens, positions, active, size)
                self._draw([by_slot[s] for s in active], logits_BV, active if size > 1 else [0])

    def _draw(self, requests: list[_Request], logits_BV: torch.Tensor, rows: list[int]) -> None:
        """Append one token to each request; row rows[i] of the logits is requests[i]'s."""
        idle = Sampling(max_tokens=1)
        samplings, uniforms = [idle] * len(logits_BV), [0.0] * len(logits_BV)
        for request, row in zip(requests, rows, strict=True):
            samplings[row] = request.sampling
            uniforms[row] = uniform(request.seed, len(request.ids))
        finite = logits_BV.isfinite().all(dim=-1).tolist()
        logp_BV = log_probs(logits_BV, samplings)
        token_B = draw(logp_BV, samplings, uniforms).clamp_(max=self.vocab_size - 1)
        logprobs = logp_BV.gather(1, token_B.unsqueeze(1)).squeeze(1).tolist()
        tokens = token_B.tolist()
        for request, row in zip(requests, rows, strict=True):
            if finite[row]:
                self._append(request, tokens[row], logprobs[row])
            else:
                self._core.clear_slot(request.slot)
                self._fail(request, "the model's logits are not finite")

    def _append(self, request: _Request, token: int, logprob: float) -> None:
        request.ids.append(token)
        request.logprobs.append(logprob)
        request.versions.append(self.version)
        if token in request.sampling.stop_ids or token in self._end_ids:
            self._finish(request, "stop")
        elif len(request.ids) == request.sampling.max_tokens:
            self._finish(request, "length")

    def _finish(self, request: _Request, reason: FinishReason) -> None:
        self._release(request)
        generation = Generation(
            tuple(request.ids), tuple(request.logprobs), reason, _spans(request.versions), request.cached_tokens
        )
        with contextlib.suppress(InvalidStateError):  # the caller has gone
            request.future.set_result(generation)

    def _fail(self, request: _Request, why: str) -> None:
        self._release(request)
        with contextlib.suppress(InvalidStateError):
            request.future.set_exception(EngineError(why))

    @contextlib.contextmanager
    def _failing(self, requests: list[_Request]) -> Iterator[None]:
        """Turn an error of the model into an EngineError of these requests."""
        try:
            yield
        except (RuntimeError, ValueError, IndexError, MemoryError) as e:
            for request in requests:
                self._fail(request, f"{type(e).__name__}: {e}")

    def _release(self, request: _Request) -> None:
        if self._active.pop(request.id, None) is not None:
            self._free.append(request.slot)
            self._free.sort()
        else:
            with contextlib.suppress(ValueError):
                self._waiting.remove(request)

    def _retract(self) -> None:
        """Take every active request back to the front of the queue; its tokens so far are kept."""
        requests = list(self._active.values())
        for request in requests:
            self._release(request)
        self._waiting.extendleft(reversed(requests))

    def _finish_waiting(self) -> None:
        for request in list(self._waiting):
            self._finish(request, "abort")

    def _begin_update(self) -> None:
        if not self._paused:  # a caller that paused chose what happens to the requests in flight
            self._retract()
        self._core.clear_prefixes()
        self._updating = True

    def _load(self, bucket: Bucket, final_version: int | None) -> None:
        """Copy one bucket in. Everything is checked before the first byte changes."""
        if not self._updating:
            raise EngineError("load_bucket outside begin_update and end_update")
        problem = next((p for name, t in bucket if (p := self._misfit(name, t))), None)
        if problem:
            self._end_update()  # with the old weights, unless an earlier bucket is in
            raise EngineError(f"weight update refused: {problem}")
        self._broken = "a weight update ended half-way: the engine waits for a whole one"
        for name, tensor in bucket:
            self._parameters[name].copy_(tensor)
        if final_version is not None:
            self._broken = ""
            self.version = final_version

    def _misfit(self, name: str, tensor: torch.Tensor) -> str:
        own = self._parameters.get(name)
        if own is None:
            return f"the model has no parameter {name}"
        if own.shape != tensor.shape:
            return f"{name} has shape {tuple(tensor.shape)}, the model's is {tuple(own.shape)}"
        return ""

    def _end_update(self) -> None:
        self._updating = False
        if self._broken:
            for request in [*self._active.values(), *self._waiting]:
                self._fail(request, self._broken)


def _settle(future: Future[T], work: Callable[[], T]) -> None:
    try:
        result = work()
    except (EngineError, RuntimeError, ValueError, MemoryError) as e:
        error = e if isinstance(e, EngineError) else EngineError(f"{type(e).__name__}: {e}")
        with contextlib.suppress(InvalidStateError):
            future.set_exception(error)
        return
    with contextlib.suppress(InvalidStateError):
        future.set_result(result)


def _spans(versions: list[int]) -> tuple[VersionSpan, ...]:
    """Runs of equal versions."""
    spans: list[VersionSpan] = []
    for i, version in enumerate(versions):
        if spans and spans[-1].version == version:
            spans[-1] = VersionSpan(version, spans[-1].start, i + 1)
        else:
            spans.append(VersionSpan(version, i, i + 1))
    return tuple(spans)
