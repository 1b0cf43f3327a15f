"""The stages of the quickstart in order, each with its inputs: what decides whether it must be made again."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from common.config import Config
from launch.quickstart import data, training
from launch.quickstart.config import Folders, QuickstartConfig
from launch.quickstart.engine import run_engine
from launch.quickstart.evaluation import BEFORE, MIDTRAINED, run_eval_before, run_eval_midtrained, run_eval_rl
from launch.quickstart.pipeline import Stage, Summary
from launch.quickstart.summary import run_report
from rl.config import RLConfig

Run = Callable[[QuickstartConfig, Folders], Summary]


def stages(config: QuickstartConfig, root: Path) -> list[Stage]:
    """Stages a to h of the run folder `root`."""
    folders = Folders(root)
    evaluated = [f"eval-{name}" for name in (BEFORE, MIDTRAINED, *config.rl)]
    midtrain = [plain(config.midtrain), config.midtrain_ranks]
    untrained = [plain(config.eval), plain(config.midtrain)]

    def stage(name: str, title: str, run: Run, inputs: Any, *after: str) -> Stage:
        data = plain(inputs) if isinstance(inputs, Config) else inputs
        return Stage(name, title, partial(run, config, folders), data, after)

    def rl_stages(name: str, rl: RLConfig) -> tuple[Stage, Stage]:
        train, ask = partial(training.run_rl, name), partial(run_eval_rl, name)
        return (
            stage(f"rl-{name}", f"RL: {name}", train, [plain(rl), config.rl_ranks], "engine"),
            stage(f"eval-{name}", f"evaluation after {name}", ask, config.eval, f"rl-{name}"),
        )

    return [
        stage("corpus", "generated corpus", data.make_corpus, config.corpus),
        stage("tokenizer", "tokenizer", data.make_tokenizer, config.tokenizer, "corpus"),
        stage("shards", "shards", data.make_shards, config.prepare, "corpus", "tokenizer"),
        stage("midtrain", "midtraining", training.run_midtrain, midtrain, "shards"),
        stage("export", "export", training.check_export, None, "midtrain"),
        stage("eval-before", "evaluation before midtraining", run_eval_before, untrained, "tokenizer"),
        stage("eval-midtrained", "evaluation after midtraining", run_eval_midtrained, config.eval, "midtrain"),
        stage("engine", "rollout engine", run_engine, config.engine, "midtrain"),
        *(one for name, rl in config.rl.items() for one in rl_stages(name, rl)),
        stage("report", "report", run_report, None, *evaluated, *(f"rl-{name}" for name in config.rl)),
    ]


def plain(config: Config) -> Any:
    """A configuration as data that can be hashed."""
    return config.model_dump(mode="json")
