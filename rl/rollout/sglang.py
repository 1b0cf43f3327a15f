"""SGLangEngine: the HTTP client of one SGLang server. The same code on GPU and CPU; it never imports sglang.

Runs on the rank that owns the rollout side. Token ids in and out, never text. Every call has a deadline and every
failure (refused, timed out, died, answered nonsense) becomes EngineError. What the protocol does not forgive is
checked here before it is sent: ids outside the vocabulary and tensors of another shape kill a server, unknown tensor
names are silently ignored, `ignore_eos` switches stop ids off (never sent). At an update, requests in flight are
retracted and the prefix cache is flushed: the one combination after which nothing of the old weights is left (after
an update in place, new prompts hit the old weights' cache under the new version's name: refused).
Streamed updates travel over a torch.distributed group (gloo or NCCL) that the engine opens at the first one or, to a
server on this machine, as handles to shared memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from common.errors import SHAPE_ERRORS
from envs.engine import EngineError, FinishReason, Generation, Sampling, VersionSpan
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
from rl.rollout.checkpoint import positive, read_config, tensor_shapes
from rl.rollout.http import HttpFailed, JsonHttp

if TYPE_CHECKING:
    from rl.weight_sync.group import BroadcastGroup

Backend = Literal["gloo", "nccl"]
GENERATE_TIMEOUT_S = 600.0
CONTROL_TIMEOUT_S = 120.0
PROBE_TIMEOUT_S = 10.0
HEALTH_TIMEOUT_S = 30.0
UNAUTHORIZED = 401
KEY_FIX = "; it wants another key: name the variable that holds it as api_key_variable beside the servers' urls"


class SGLangEngine(StreamedUpdates):
    """One server at `url` serving the architecture of `model_path` (an HF directory on this machine).

    Weights are broadcast over NCCL where both sides are on GPUs, else over gloo. deterministic: the server runs
    SGLang's deterministic inference, which CPU servers refuse; only then is the engine reproducible and gets seeds.
    """

    stream_transports: tuple[StreamTransport, ...] = ("distributed", "tensor")
    stream_transport: StreamTransport = "distributed"
    checksum_layout: ChecksumLayout | None = "sglang"

    def __init__(
        self,
        url: str,
        model_path: Path,
        *,
        api_key: str | None = None,
        version: int = 0,
        deterministic: bool = False,
        generate_timeout_s: float = GENERATE_TIMEOUT_S,
        control_timeout_s: float = CONTROL_TIMEOUT_S,
        probe_timeout_s: float = HEALTH_TIMEOUT_S,
    ) -> None:
        config = read_config(model_path)
        self.url = url.rstrip("/")
        self.name = f"sglang {self.url}"
        self.version = version
        self.reproducible = deterministic
        self.vocab_size = positive(config, "vocab_size", model_path)
        self.max_context = positive(config, "max_position_embeddings", model_path)
        self._shapes = tensor_shapes(model_path)
        self._backend: Backend = "gloo"
        self._generate_timeout_s, self._control_timeout_s = generate_timeout_s, control_timeout_s
        self._probe_timeout_s = probe_timeout_s
        self._ranks = 1
        self._paused: PauseMode | None = None
        self._resume_after_update = False
        self._broken = ""
        self._group: BroadcastGroup | None = None
        self._http = JsonHttp(self.url, api_key=api_key)

    async def connect(self) -> None:
        """Read what the server is: its context, version, device, ranks. Raises EngineError."""
        info = await self._post("/server_info", None, self._control_timeout_s, method="GET")
        try:
            self.max_context = min(self.max_context, int(info.get("max_req_input_len") or self.max_context))
            self._ranks = int(info.get("tp_size") or 1)
        except (TypeError, ValueError, OverflowError) as e:
            raise EngineError(f"{self.name}: an answer that does not describe a server ({e})") from e
        self.version = _version(info.get("weight_version", self.version))
        self._backend = _backend(str(info.get("device")))
        comparable = info.get("device") == "cpu" and self._ranks == 1
        self.checksum_layout = "sglang" if comparable else None

    # Requests

    async def generate(
        self, prompt_ids: tuple[int, ...], sampling: Sampling, *, seed: int, request_id: str
    ) -> Generation:
        """Sample one completion. Cancelling the call aborts it on the server too (the connection closes)."""
        check_request(prompt_ids, sampling, vocab_size=self.vocab_size, max_context=self.max_context)
        self._check_usable()
        body = {
            "rid": request_id,
            "input_ids": prompt_ids,
            "sampling_params": self._sampling_params(sampling, seed),
            "return_logprob": True,
            "logprob_start_len": -1,
        }
        return self._generation(await self._post("/generate", body, self._generate_timeout_s))

    def _sampling_params(self, sampling: Sampling, seed: int) -> dict[str, Any]:
        params: dict[str, Any] = {
            "max_new_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
            "stop_token_ids": sampling.stop_ids,
            "skip_special_tokens": False,
        }
        if sampling.json_schema is not None:
            params["json_schema"] = sampling.json_schema
        if self.reproducible:
            params["sampling_seed"] = seed % (1 << 31)
        return params

    def _generation(self, reply: Mapping[str, Any]) -> Generation:
        try:
            meta = reply["meta_info"]
            finish = meta["finish_reason"]
            pairs = meta["output_token_logprobs"]
            ids = tuple([int(pair[1]) for pair in pairs])
            logprobs = tuple([float(pair[0]) for pair in pairs])
            spans = tuple(
                VersionSpan(_version(s["version"]), s["start"], s["end"]) for s in meta.get("weight_versions") or ()
            ) or (VersionSpan(_version(meta["weight_version"]), 0, len(ids)),)
            reason = _finish(finish)
            cached = int(meta.get("cached_tokens") or 0)
            output_ids = tuple(reply["output_ids"])
        except SHAPE_ERRORS as e:
            raise EngineError(f"{self.name}: an answer that is not a generation ({type(e).__name__}: {e})") from e
        self._check_drawn(ids, logprobs)
        if ids != output_ids and reason != "abort":
            raise EngineError(f"{self.name}: output ids and log-probs disagree")
        return Generation(ids, logprobs, reason, spans if ids else (), cached)

    def _check_drawn(self, ids: tuple[int, ...], logprobs: tuple[float, ...]) -> None:
        """What would poison a batch later is refused here."""
        if not all(0 <= i < self.vocab_size for i in ids):
            raise EngineError(f"{self.name}: token ids outside the vocabulary of {self.vocab_size}")
        if not all(map(math.isfinite, logprobs)):
            raise EngineError(f"{self.name}: a log-prob that is no number")

    async def score(self, ids: tuple[int, ...], start: int) -> tuple[float, ...]:
        check_request(ids, None, vocab_size=self.vocab_size, max_context=self.max_context)
        if not 1 <= start <= len(ids):
            raise EngineError(f"score from {start} of {len(ids)} ids: start is at least 1")
        if start == len(ids):
            return ()
        self._check_usable()
        body = {
            "input_ids": ids,
            "sampling_params": {"max_new_tokens": 0, "temperature": 1.0},
            "return_logprob": True,
            "logprob_start_len": start - 1,
        }
        reply = await self._post("/generate", body, self._generate_timeout_s)
        try:
            entries = reply["meta_info"]["input_token_logprobs"][1:]
            scores = tuple(float(entry[0]) for entry in entries)
            scored_ids = tuple(int(entry[1]) for entry in entries)
        except SHAPE_ERRORS as e:
            raise EngineError(f"{self.name}: an answer that is not a score ({type(e).__name__}: {e})") from e
        # SGLang reports the vocabulary's last id (here often <|im_end|>) as 0; its log-prob is the right one.
        expected = tuple(i if i < self.vocab_size - 1 else 0 for i in ids[start:])
        if expected != tuple(i if i < self.vocab_size - 1 else 0 for i in scored_ids):
            raise EngineError(
                f"{self.name}: scored other tokens than were asked for: {len(scored_ids)} for {len(ids) - start}, "
                f"from {start} of {len(ids)}, {scored_ids[:8]}… for {ids[start : start + 8]}…"
            )
        if not all(map(math.isfinite, scores)):
            raise EngineError(f"{self.name}: a log-prob that is no number")
        return scores

    async def abort(self, request_id: str | None = None) -> None:
        body = {"abort_all": True} if request_id is None else {"rid": request_id}
        await self._post("/abort_request", body, self._control_timeout_s)

    # Control

    async def pause(self, mode: PauseMode = "retract") -> None:
        self._paused = mode
        await self._post("/pause_generation", {"mode": mode}, self._control_timeout_s)

    async def resume(self) -> None:
        await self._post("/continue_generation", {}, self._control_timeout_s)
        self._paused = None

    async def flush(self) -> None:
        """Drop cached prefixes; waits until nothing runs."""
        timeout_s = self._control_timeout_s
        await self._post(f"/flush_cache?timeout={timeout_s:g}", {}, timeout_s + PROBE_TIMEOUT_S)

    async def answers(self, *, idle: bool = False) -> bool:
        """Whether the server lives: it can draw a token, or, while paused, its front end answers.

        SGLang's /health draws one and looks for it a second later; asked while paused it would wait 20 s and mark the
        server sick. `idle`: nothing waits there, so that a token asked for here comes at once.
        """
        try:
            if self._paused:
                await self._post("/model_info", None, PROBE_TIMEOUT_S, method="GET")
            elif idle:
                body = {"input_ids": [0], "sampling_params": {"max_new_tokens": 1, "temperature": 0.0}}
                await self._post("/generate", body, self._probe_timeout_s)
            else:
                await self._post("/health", None, self._probe_timeout_s, method="GET")
        except EngineError:
            return False
        return True

    async def health(self) -> Health:
        """Asks /model_info, which answers while paused too (SGLang's own /health would mark the server sick)."""
        detail = self._broken
        try:
            info = await self._post("/model_info", None, PROBE_TIMEOUT_S, method="GET")
            _version(info["weight_version"])
        except (EngineError, KeyError) as e:
            detail = str(e)
        return Health(serving=not detail, paused=self._paused is not None, version=self.version, detail=detail)

    async def checksums(self) -> Mapping[str, str]:
        reply = await self._post("/weights_checker", {"action": "checksum"}, self._control_timeout_s)
        try:
            (rank,) = reply["ranks"]
            return {str(name): str(value) for name, value in rank["checksums"].items()}
        except SHAPE_ERRORS as e:
            raise EngineError(f"{self.name}: not the checksums of one rank ({type(e).__name__}: {e})") from e

    async def close(self) -> None:
        """Leave the weight group and drop the connections; the server goes on."""
        if self._group is not None:
            with contextlib.suppress(EngineError):  # the server may be gone
                await self._update("/destroy_weights_update_group", {"group_name": self._group.name})
            self._leave_group()
        await self._http.close()

    # Weights

    async def update_weights(self, source: Path | Iterable[NamedTensor], version: int) -> None:
        if not isinstance(source, Path):
            await self._update_from_stream(source, version)
            return
        found = tensor_shapes(source)
        self._check_shapes(found)
        if missing := sorted(self._shapes.keys() - found.keys()):
            raise EngineError(f"{source} lacks {len(missing)} tensors, first {missing[0]}")
        self._check_pause_mode()
        resume = self._paused is None
        if resume:
            await self.pause("retract")
        try:
            body = {"model_path": str(source.resolve()), "weight_version": str(version), "flush_cache": True}
            await self._update("/update_weights_from_disk", body)
            self.version, self._broken = version, ""
        finally:
            if resume:
                await self.resume()

    def _check_pause_mode(self) -> None:
        if self._paused == "in_place":
            raise EngineError(
                f"{self.name}: an update in place would leave cached prefixes of the old weights: retract"
            )

    async def begin_update(self) -> None:
        self._check_pause_mode()
        self._resume_after_update = self._paused is None
        if self._resume_after_update:
            await self.pause("retract")
        try:
            await self._update("/begin_weight_update", {})
        except EngineError:
            if self._resume_after_update:
                await self.resume()
            raise

    async def load_bucket(self, bucket: Bucket, *, final_version: int | None = None) -> None:
        """One bucket, by broadcast or as handles to shared memory."""
        self._check_shapes({name: tuple(tensor.shape) for name, tensor in bucket})
        body: dict[str, Any] = {"flush_cache": final_version is not None}
        if final_version is not None:
            body["weight_version"] = str(final_version)
        self._broken = f"{self.name}: a weight update ended half-way: the engine waits for a whole one"
        if self.stream_transport == "tensor":
            await self._share(bucket, body)
        else:
            await self._broadcast(bucket, body)
        if final_version is not None:
            self.version, self._broken = final_version, ""

    async def _share(self, bucket: Bucket, body: dict[str, Any]) -> None:
        """Handles to copies in memory that the server can map; it must run on this machine."""
        from rl.weight_sync.shared import as_handles

        payload, kept = await asyncio.to_thread(as_handles, bucket)
        await self._update(
            "/update_weights_from_tensor", body | {"serialized_named_tensors": [payload] * self._ranks}
        )
        kept.clear()  # they had to live until here

    async def _broadcast(self, bucket: Bucket, body: dict[str, Any]) -> None:
        """One bucket as one tensor of bytes; names, dtypes and shapes travel by HTTP."""
        # Wide dtypes first: each tensor's offset in the bucket must be a multiple of its element size.
        ordered = sorted(bucket, key=lambda item: -item[1].element_size())
        body = body | {
            "names": [name for name, _ in ordered],
            "dtypes": [str(tensor.dtype).removeprefix("torch.") for _, tensor in ordered],
            "shapes": [list(tensor.shape) for _, tensor in ordered],
            "load_format": "flattened_bucket",
        }
        try:
            group = await self._open_group()
            async with asyncio.timeout(self._control_timeout_s):
                await asyncio.gather(
                    self._update("/update_weights_from_distributed", body | {"group_name": group.name}),
                    asyncio.to_thread(group.broadcast, [tensor for _, tensor in ordered]),
                )
        except (EngineError, OSError, RuntimeError, ValueError) as e:
            self._leave_group()
            raise EngineError(f"{self.name}: weight broadcast failed: {str(e) or 'timed out'}") from e

    async def end_update(self) -> None:
        try:
            await self._update("/end_weight_update", {})
            if self._broken:  # nobody may be served by half an update
                await self.abort()
        finally:
            if self._resume_after_update:
                await self.resume()

    async def _update(self, path: str, body: Mapping[str, Any]) -> None:
        reply = await self._post(path, body, self._control_timeout_s)
        if reply.get("success") is not True:
            raise EngineError(f"{self.name}{path}: {reply.get('message', reply)}")

    async def _open_group(self) -> BroadcastGroup:
        from rl.weight_sync.group import BroadcastGroup, own_address

        if self._group is None:
            group = BroadcastGroup(
                receivers=self._ranks,
                backend=self._backend,
                timeout_s=self._control_timeout_s,
                host=own_address(self.url),
            )
            body = {
                "master_address": group.host,
                "master_port": group.port,
                "rank_offset": 1,
                "world_size": 1 + self._ranks,
                "group_name": group.name,
                "backend": self._backend,
            }
            await asyncio.gather(self._update("/init_weights_update_group", body), asyncio.to_thread(group.join))
            self._group = group
        return self._group

    def _leave_group(self) -> None:
        if self._group is not None:
            self._group.close()
            self._group = None

    def _check_shapes(self, found: Mapping[str, tuple[int, ...]]) -> None:
        for name, shape in found.items():
            if name not in self._shapes:
                raise EngineError(f"weight update refused: the model has no parameter {name}")
            if self._shapes[name] != shape:
                raise EngineError(
                    f"weight update refused: {name} has shape {shape}, the model's is {self._shapes[name]}"
                )

    # HTTP

    def _check_usable(self) -> None:
        if self._broken:
            raise EngineError(self._broken)

    async def _post(
        self, path: str, body: Mapping[str, Any] | None, timeout_s: float, *, method: str = "POST"
    ) -> dict[str, Any]:
        """One request, one JSON answer. A 400 that says success: false is an answer; other statuses are errors."""
        try:
            answer = await self._http.request(path, body, timeout_s, method=method)
        except HttpFailed as e:
            raise EngineError(f"{self.name}{path}: {e}") from e
        try:
            reply = answer.json() if answer.content else {}
        except ValueError:
            reply = {"message": answer.text}
        if answer.status >= 400 and not (isinstance(reply, dict) and reply.get("success") is False):
            fix = KEY_FIX if answer.status == UNAUTHORIZED else ""
            raise EngineError(f"{self.name}{path}: status {answer.status}: {answer.text[:500]}{fix}")
        if not isinstance(reply, dict):
            raise EngineError(f"{self.name}{path}: an answer that is no object: {answer.text[:200]}")
        return reply


def _backend(device: str) -> Backend:
    """Of the weights' way to a server on `device`: NCCL needs a GPU at both ends, gloo none."""
    import torch

    return "nccl" if device.startswith("cuda") and torch.cuda.is_available() else "gloo"


def _version(text: Any) -> int:
    """SGLang's versions are strings, ours are numbers; a server that was never updated says "default"."""
    if text == "default":
        return 0
    try:
        return int(text)
    except (TypeError, ValueError, OverflowError):
        raise EngineError(f"weight version {text!r} is not a number: this server is driven by someone else") from None


def _finish(reason: Mapping[str, Any]) -> FinishReason:
    kind = reason["type"]
    if kind in ("stop", "length"):
        return kind
    if kind != "abort":
        raise EngineError(f"unknown finish reason {kind!r}")
    if reason.get("status_code"):
        raise EngineError(f"the server gave the request up: {reason.get('message')}")
    return "abort"
