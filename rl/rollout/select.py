"""Which engine a run gets, and starting it. The one place that knows both kinds.

`auto` takes SGLang where its environment has been built (or servers are given by URL), else the embedded engine. The
choice and its reason are one printed line.
"""

from __future__ import annotations

from pathlib import Path

from common.errors import UsageError
from rl.rollout.base import RolloutEngine
from rl.rollout.config import EngineKind, RolloutConfig
from rl.rollout.server import default_python, is_built


def choose_engine(config: RolloutConfig) -> tuple[EngineKind, str]:
    """("sglang" or "embedded", why). Raises UsageError when SGLang is asked for and is not there."""
    python = config.python or default_python()
    if config.urls:
        return "sglang", f"{len(config.urls)} servers given by URL"
    if config.kind == "embedded":
        return "embedded", "as configured"
    if is_built(python):
        return "sglang", f"environment {python.parent.parent.name}"
    if config.kind == "sglang":
        raise UsageError("the SGLang environment is not built", where=str(python), fix="run: make sglang")
    return "embedded", "no SGLang environment; make sglang builds it"


async def open_rollout(model: Path, config: RolloutConfig, run_dir: Path) -> RolloutEngine:
    """A running engine that serves the HF directory `model`; `close` it when done. Server logs: run_dir/logs."""
    kind, why = choose_engine(config)
    print(f"rollout engine: {'SGLang' if kind == 'sglang' else 'embedded transformers'} ({why})", flush=True)
    if kind == "embedded":
        from rl.rollout.embedded import EmbeddedEngine

        return EmbeddedEngine(model, max_context=config.max_context, timeout_s=config.generate_timeout_s)
    from rl.rollout.pool import EnginePool

    if config.urls:
        return await EnginePool.attach(model, config, run_dir)
    return await EnginePool.start(model, config, run_dir)
