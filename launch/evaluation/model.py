"""Opening the evaluated model: who it is, and a player that speaks for it. Started and stopped here.

Local weights are a Hugging Face folder, or a Megatron checkpoint that is exported to RUN/model first. Whoever serves
them, prompts are rendered by our own renderer and travel as token ids. An endpoint gets messages and renders them.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from common.errors import OsimError, UsageError
from common.files import hash_file, hash_json
from common.run_folder import RunFolder
from envs.client.client import Client
from envs.engine import EngineError
from envs.players.base import Player
from launch.evaluation.config import EvalRunConfig, endpoint_identity

EXPORT = "model"
SOURCE = "exported_from"
"""File in it: the step folder."""


@dataclass(frozen=True)
class Identity:
    """Who is evaluated: part of every episode's key."""

    model: str
    """Hash of the weights, or the endpoint."""
    weights: Path | None
    """The Hugging Face folder that is served; None for an endpoint."""
    source: str
    """Where it came from, for people."""


@dataclass(frozen=True)
class Seated:
    """The model, ready to play."""

    player: Player
    engine: str
    max_context: int | None = None
    """Tokens of prompt and answer that it takes; None: unknown."""


def identify(config: EvalRunConfig, run: Path) -> Identity:
    """Find the weights (exporting a Megatron checkpoint once), or name the endpoint. Raises UsageError."""
    if config.model.endpoint is not None:
        name = endpoint_identity(config.model.endpoint, os.environ)
        return Identity(f"api {name}", None, name)
    path = config.model.path
    assert path is not None
    if (path / "config.json").is_file():
        return Identity(weights_hash(path), path, str(path))
    checkpoints = megatron_checkpoints(path)
    if checkpoints is None:
        raise UsageError(
            "neither a Hugging Face folder (config.json) nor Megatron checkpoints (step-… folders)",
            where=str(path),
            fix="give RUN/hf, RUN, RUN/checkpoints or RUN/checkpoints/step-…",
        )
    exported = export(checkpoints, run / EXPORT)
    return Identity(weights_hash(exported), exported, str(checkpoints))


def megatron_checkpoints(path: Path) -> Path | None:
    """The step folder that `path` means: itself, or the newest one of a run or checkpoints folder."""
    if path.name.startswith("step-") and path.is_dir():
        return path
    for folder in (path, path / "checkpoints"):
        steps = sorted(p for p in folder.glob("step-*") if p.is_dir())
        if steps:
            return steps[-1]
    return None


def export(step: Path, target: Path) -> Path:
    """The Hugging Face folder of one Megatron checkpoint; made once, whole or not at all.

    Raises UsageError where the folder was made from another one: a run that was trained on meanwhile has a newer.
    """
    made_from = target / SOURCE
    if (target / "config.json").is_file():
        if made_from.is_file() and (other := made_from.read_text()) != str(step.resolve()):
            raise UsageError(
                f"this run evaluates {other}, and the newest checkpoint is {step.name} now",
                where=str(target),
                fix=f"give another --out, or model.path={other}",
            )
        return target
    from launch.conversion import megatron_to_hf
    from megatron_osim.config import ParallelConfig

    run = step.parent.parent
    if not (run / "config.yaml").is_file():
        raise UsageError(
            "the run's config.yaml is not beside the checkpoints",
            where=str(run),
            fix="keep RUN/config.yaml, or export with: osim convert megatron-to-hf",
        )
    # A run of one checkpoint: the exporter takes the newest one it sees.
    chosen = target.with_name(f".{target.name}.source")
    shutil.rmtree(chosen, ignore_errors=True)
    (chosen / "checkpoints").mkdir(parents=True)
    (chosen / "checkpoints" / step.name).symlink_to(step.resolve())
    shutil.copyfile(run / "config.yaml", chosen / "config.yaml")
    try:
        megatron_to_hf(chosen, target, ParallelConfig())
    finally:
        shutil.rmtree(chosen, ignore_errors=True)
    made_from.write_text(str(step.resolve()))
    return target


class ModelNotServed(OsimError):
    """The server of the local weights did not come up."""


@asynccontextmanager
async def seat(config: EvalRunConfig, identity: Identity, client: Client, run: RunFolder) -> AsyncIterator[Seated]:
    """The player of the evaluated model, for the length of the body."""
    decoding = config.decoding
    if identity.weights is None:
        from envs.players.chat import ChatPlayer

        player = ChatPlayer(client, role="policy", temperature=decoding.temperature, max_tokens=decoding.max_tokens)
        yield Seated(player, "OpenAI-compatible endpoint")
        return
    from data_tools.renderer import Renderer
    from envs.engine import Sampling
    from envs.players.engine import EnginePlayer

    sampling = Sampling(decoding.max_tokens, decoding.temperature, decoding.top_p, decoding.top_k)
    renderer = Renderer.load(identity.weights, live=True)
    if config.model.vllm is not None:
        from launch.evaluation.vllm import open_vllm

        async with AsyncExitStack() as stack:
            with _served(identity.weights, run):
                vllm = await stack.enter_async_context(open_vllm(identity.weights, config.model.vllm, run.logs))
            yield Seated(EnginePlayer(vllm, renderer, sampling), vllm.name, config.model.vllm.max_context)
        return
    from rl.rollout.select import open_rollout

    with _served(identity.weights, run):
        engine = await open_rollout(identity.weights, config.model.engine, run.path)
    try:
        most = min(config.model.engine.max_context, getattr(engine, "max_context", config.model.engine.max_context))
        yield Seated(EnginePlayer(engine, renderer, sampling), engine.name, most)
    finally:
        await engine.close()


@contextmanager
def _served(weights: Path, run: RunFolder) -> Iterator[None]:
    """A server that does not start is told in one piece."""
    try:
        yield
    except EngineError as e:
        raise ModelNotServed(str(e), where=str(weights), fix=f"see the server's log in {run.logs}") from e


def weights_hash(model: Path) -> str:
    """Identity of a Hugging Face folder's weights and tokenizer."""
    files = sorted([*model.glob("*.safetensors"), *model.glob("tokenizer.json"), *model.glob("config.json")])
    return hash_json([[f.name, hash_file(f)] for f in files])
