"""`osim eval run` composed: a model (local weights) behind a player, the run folder's ledger, the results.

Runs in the process of the command. Owns the engine for the length of the evaluation and the folder's lock. Resumes:
episodes that have a score in the ledger are not played again. A failed coverage gate leaves results.json behind.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from pydantic import model_validator

from common.config import Config, load
from common.errors import UsageError
from common.files import hash_file, hash_json
from common.run_folder import RunFolder
from eval.config import EvalConfig
from eval.results import RESULTS_FILE, LowCoverage, Results
from eval.run import Contestants, Progress
from eval.run import run as play
from rl.rollout.config import RolloutConfig


class EvalModelConfig(Config):
    """Which model is evaluated."""

    path: Path
    """Hugging Face folder with weights and tokenizer."""
    engine: RolloutConfig = RolloutConfig(kind="embedded")
    """What serves it."""


class EvalRunConfig(EvalConfig):
    """One evaluation of one model: what is asked, and whom."""

    name: str = ""
    """Label in tables; empty: the model's folder."""
    model: EvalModelConfig

    @model_validator(mode="after")
    def _named(self) -> EvalRunConfig:
        if not self.name:
            object.__setattr__(self, "name", self.model.path.name)
        return self

    @property
    def questions(self) -> EvalConfig:
        """What is asked, without whom."""
        return EvalConfig(**{name: getattr(self, name) for name in EvalConfig.model_fields})


def evaluate(config: EvalRunConfig, folder: Path, on_progress: Callable[[Progress], None] | None = None) -> Results:
    """Evaluate and write RUN/results.json. Raises Interrupted, or LowCoverage after writing what there is."""
    if not (config.model.path / "config.json").is_file():
        fix = "give the folder of an HF export (osim midtrain writes RUN/hf)"
        raise UsageError("no Hugging Face model here", where=str(config.model.path), fix=fix)
    run = RunFolder.prepare(folder, config, inputs={"model": weights_hash(config.model.path)})
    with run.lock():
        try:
            results = asyncio.run(_evaluate(config, run, on_progress))
        except LowCoverage as e:
            e.results.save(run.path / RESULTS_FILE)
            raise
        results.save(run.path / RESULTS_FILE)
    return results


async def _evaluate(config: EvalRunConfig, run: RunFolder, on_progress: Callable[[Progress], None] | None) -> Results:
    from data_tools.renderer import Renderer
    from envs.engine import Sampling
    from envs.ledger import Ledger
    from envs.players.engine import EnginePlayer
    from eval.store import LedgerStore
    from rl.rollout.select import open_rollout

    decoding = config.decoding
    sampling = Sampling(decoding.max_tokens, decoding.temperature, decoding.top_p, decoding.top_k)
    model = config.model.path
    engine = await open_rollout(model, config.model.engine, run.path)
    try:
        player = EnginePlayer(engine, Renderer.load(model), sampling)
        contestants = Contestants(model=weights_hash(model), policy=player)
        with Ledger(run.ledger) as ledger:
            return await play(
                config.questions,
                contestants,
                LedgerStore(ledger),
                name=config.name,
                on_progress=on_progress,
                provenance={"model_path": str(model), "engine": engine.name},
            )
    finally:
        await engine.close()


def rescore_run(folder: Path, profile: str, out: Path) -> Results:
    """Recorded episodes of an evaluation under another scorer profile; writes OUT/results.json."""
    from envs.ledger import LedgerReader
    from eval.plan import make_plan
    from eval.rescore import rescore
    from eval.store import load_episodes

    run = RunFolder(folder)
    config = load(EvalRunConfig, run.config)
    recorded = Results.load(folder)
    plan = make_plan(config.questions, recorded.model)
    with LedgerReader(run.ledger) as ledger:
        episodes = load_episodes(ledger, plan)
    results, _ = asyncio.run(rescore(plan, episodes, profile, name=f"{recorded.name}, {profile}"))
    results.save(out / RESULTS_FILE)
    return results


def weights_hash(model: Path) -> str:
    """Identity of a Hugging Face folder's weights and tokenizer."""
    files = sorted([*model.glob("*.safetensors"), *model.glob("tokenizer.json"), *model.glob("config.json")])
    return hash_json([[f.name, hash_file(f)] for f in files])
