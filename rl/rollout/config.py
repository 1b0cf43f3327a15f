"""Configuration of the rollout service and of weight synchronisation. Imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from common.config import Config
from common.redact import IS_SECRET, addresses_without_secret

EngineKind = Literal["auto", "sglang", "embedded"]
Transport = Literal["auto", "disk", "distributed", "tensor"]
KEY_FLAGS = ("--api-key", "--admin-api-key")
"""Of SGLang. A command line is read by every user of the machine, a recipe is copied to the run folder."""


class RolloutConfig(Config):
    """Which engines draw the tokens, and what each SGLang server may use."""

    kind: EngineKind = "auto"
    """sglang: server processes (make sglang); embedded: transformers in this process; auto: sglang where it is."""
    urls: tuple[str, ...] = ()
    """SGLang servers that already run, e.g. http://node7:30000; then none are started."""
    api_key_variable: str | None = None
    """Name of the environment variable with the servers' key. None: no key for `urls`, and a fresh one for each
    server that is started."""
    servers: int = Field(default=1, ge=1)
    """SGLang servers to start and supervise."""
    port: int | None = Field(default=None, ge=1, le=65535)
    """Port of the first server, the others follow; None takes free ones."""
    host: str = "127.0.0.1"
    """Address that started servers listen on."""
    python: Path | None = None
    """Interpreter of the SGLang environment; default .venv-sglang/bin/python beside the source."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where a started server computes; auto: on a GPU where there is one."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """auto: the checkpoint's."""
    tensor_parallel: int = Field(default=1, ge=1)
    """GPUs per server."""
    max_context: int = Field(default=2048, ge=16)
    """Longest prompt with its completion, in tokens."""
    max_running_requests: int = Field(default=32, ge=1)
    """Requests that one engine decodes at once."""
    max_total_tokens: int = Field(default=32768, ge=1024)
    """KV cache of one server, in tokens."""
    mem_fraction: float = Field(default=0.8, gt=0, lt=1)
    """Share of a GPU's memory for weights and KV cache."""
    deterministic: bool = False
    """SGLang's deterministic inference (GPU only): reproducible tokens, slower."""
    extra_flags: tuple[str, ...] = ()
    """More flags of SGLang's own."""
    start_timeout_s: float = Field(default=600.0, gt=0)
    """Longest wait for a server's first answer."""
    generate_timeout_s: float = Field(default=600.0, gt=0)
    """Longest wait for one completion."""
    control_timeout_s: float = Field(default=120.0, gt=0)
    """Longest wait for a weight update, a pause, a flush."""
    probe_interval_s: float = Field(default=10.0, gt=0)
    """How often a server is asked whether it lives; three misses in a row replace it."""
    probe_timeout_s: float = Field(default=30.0, gt=0)
    """Longest wait for that answer: a hung server is noticed after three times both."""

    _no_secret = field_validator("urls")(addresses_without_secret)

    @field_validator("extra_flags")
    @classmethod
    def _no_key(cls, flags: tuple[str, ...]) -> tuple[str, ...]:
        names = [flag.partition("=")[0] for flag in flags]
        # As argparse reads them: any beginning will do.
        if any(key.startswith(name) for name in names if len(name) > len("--") for key in KEY_FLAGS):
            raise PydanticCustomError(IS_SECRET, "a key among the flags: name its variable as api_key_variable")
        return flags

    @model_validator(mode="after")
    def _check(self) -> RolloutConfig:
        if self.urls and self.kind == "embedded":
            raise ValueError("urls name SGLang servers: kind embedded contradicts them")
        if self.deterministic and self.device == "cpu":
            raise ValueError("SGLang has no deterministic inference on a CPU: use kind embedded")
        return self


class WeightSyncConfig(Config):
    """How new weights reach the rollout engines after each training step."""

    transport: Transport = "auto"
    """disk: an HF directory; distributed: broadcast over gloo or NCCL; tensor: in process, or to SGLang on this
    machine by handles to shared memory. auto: tensor for the embedded engine, distributed for SGLang."""
    bucket_mib: int = Field(default=256, ge=1)
    """Most that a streamed update holds at once, beside the largest single tensor."""
    directory: Path | None = None
    """Where `disk` writes; default: memory-backed /dev/shm; the run folder for servers given by `rollout.urls`."""
    verify: bool = True
    """Compare checksums of engine and trainer after each sync; a difference stops the run (exit 3)."""
    shard_mib: int = Field(default=1024, ge=1)
    """Largest safetensors file that `disk` writes."""
