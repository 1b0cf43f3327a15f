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
from launch.quickstart.pipeline import Stage, Summary

Run = Callable[[QuickstartConfig, Folders], Summary]


def stages(config: QuickstartConfig, root: Path) -> list[Stage]:
    """Stages a to h of the run folder `root`."""
    folders = Folders(root)
    midtrain = [plain(config.midtrain), config.midtrain_ranks]

    def stage(name: str, title: str, run: Run, inputs: Any, *after: str) -> Stage:
        data = plain(inputs) if isinstance(inputs, Config) else inputs
        return Stage(name, title, partial(run, config, folders), data, after)

    return [
        stage("corpus", "generated corpus", data.make_corpus, config.corpus),
        stage("tokenizer", "tokenizer", data.make_tokenizer, config.tokenizer, "corpus"),
        stage("shards", "shards", data.make_shards, config.prepare, "corpus", "tokenizer"),
        stage("midtrain", "midtraining", training.run_midtrain, midtrain, "shards"),
        stage("export", "export", training.check_export, None, "midtrain"),
        stage("engine", "rollout engine", run_engine, config.engine, "midtrain"),
        *(
            stage(f"rl-{name}", f"RL: {name}", partial(training.run_rl, name), [plain(rl), config.rl_ranks], "engine")
            for name, rl in config.rl.items()
        ),
    ]


def plain(config: Config) -> Any:
    """A configuration as data that can be hashed."""
    return config.model_dump(mode="json")
