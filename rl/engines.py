"""Opens the rollout engine of a configuration, and the engines of external teachers."""

from __future__ import annotations

from pathlib import Path

from common.run_folder import RunFolder
from rl.config import RLConfig
from rl.rollout.base import RolloutEngine
from rl.rollout.embedded import EmbeddedEngine


async def open_engine(config: RLConfig, run: RunFolder) -> RolloutEngine:
    """An engine that serves the architecture of `config.model`; its weights come with the first sync."""
    return EmbeddedEngine(config.model, max_context=config.sampling.max_context_tokens, timeout_s=config.timeout_s)


async def open_teacher(model: Path, config: RLConfig) -> RolloutEngine:
    """An engine that only scores."""
    return EmbeddedEngine(model, max_context=config.sampling.max_context_tokens, timeout_s=config.timeout_s)
