"""Stage f: decide on a rollout engine, serve the midtrained model with it, and see that it answers and agrees.

The decision is recorded once (RUN/engine/engine.json): a resumed quickstart keeps its engine even when another has
been installed since.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from pydantic import TypeAdapter

from common.errors import GateError, data_errors
from common.files import read_json_object, write_json
from common.seeds import derive_rng
from envs.engine import EngineError
from launch.quickstart.config import Folders, QuickstartConfig
from launch.quickstart.pipeline import Summary
from rl.rollout.config import EngineKind, RolloutConfig

MAX_GAP = 1e-4
"""Of a sampled token's log-prob in fp32: as drawn, against the same tokens scored afterwards."""
QUESTIONS = 4
MAX_TOKENS = 32


def run_engine(config: QuickstartConfig, folders: Folders) -> Summary:
    """Choose, start, ask, score, stop."""
    from rl.rollout.select import choose_engine

    kind, why = choose_engine(RolloutConfig(kind=config.engine))
    try:
        gap, tokens, start_s = asyncio.run(_try_out(kind, folders))
    except EngineError as e:
        fix = "see the server's log beside it, or run with engine=embedded in another folder"
        raise GateError(f"the {kind} engine does not serve: {e}", where=str(folders.root / "engine"), fix=fix) from e
    if not gap <= MAX_GAP:
        raise GateError(
            f"sampled log-probs differ by {gap:.2g} from the scores of the same tokens, more than {MAX_GAP:g}",
            where=f"{kind} engine",
            fix="report it: the engine samples from another distribution than it scores",
        )
    write_json(_record(folders), {"kind": kind})
    return {
        "engine": f"{kind} ({why})",
        "started in": f"{start_s:.1f} s",
        "sampled vs scored": f"{gap:.1e}, {tokens} tokens",
    }


def chosen_engine(folders: Folders) -> EngineKind:
    """What the engine stage has decided."""
    path = _record(folders)
    with data_errors(str(path), fix="remove the engine folder: the stage is then repeated"):
        return TypeAdapter(EngineKind).validate_python(read_json_object(path)["kind"])


def _record(folders: Folders) -> Path:
    return folders.root / "engine" / "engine.json"


async def _try_out(kind: EngineKind, folders: Folders) -> tuple[float, int, float]:
    """(largest log-prob gap, tokens, seconds to start)."""
    from data_tools.renderer import Renderer
    from envs import registry
    from envs.engine import Sampling
    from rl.rollout.select import open_rollout

    spec = registry.get("hitom_mini")
    renderer, env = Renderer.load(folders.model), spec.env("strict")
    sampling = Sampling(max_tokens=MAX_TOKENS, stop_ids=(renderer.end_id,))
    started = time.monotonic()
    engine = await open_rollout(folders.model, RolloutConfig(kind=kind, max_context=1024), folders.root / "engine")
    start_s = time.monotonic() - started
    gaps = []
    try:
        for number, row in enumerate(spec.rows("test", QUESTIONS, 0)):
            state = env.start(row, derive_rng(0, "engine", number))
            prompt = tuple(renderer.prompt_ids(list(env.view(state, spec.seats[0]))))
            drawn = await engine.generate(prompt, sampling, seed=number, request_id=f"try-{number}")
            scores = await engine.score((*prompt, *drawn.ids), len(prompt))
            gaps += [abs(a - b) for a, b in zip(drawn.logprobs, scores, strict=True)]
    finally:
        await engine.close()
    return max(gaps), len(gaps), start_s
