"""Configuration of weight synchronisation. Imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from common.config import Config

Transport = Literal["auto", "disk", "distributed", "tensor"]


class WeightSyncConfig(Config):
    """How new weights reach the rollout engines after each training step."""

    transport: Transport = "auto"
    """disk: an HF directory; distributed: broadcast over gloo or NCCL; tensor: in process. auto: by engine."""
    directory: Path | None = None
    """Where `disk` (and the recovery copy) is written; default: memory-backed /dev/shm, else the run folder."""
    keep_recovery_copy: bool = True
    """With `distributed`: also write the weights to `directory`, so that a replaced server can load them."""
    verify: bool = True
    """Compare checksums of engine and trainer after each sync; a difference stops the run (exit 3)."""
    shard_mib: int = Field(default=1024, ge=1)
    """Largest safetensors file that `disk` writes."""
