"""The quickstart's recipe. Its sections are the configurations of the real commands; the paths between the stages
are filled in here, so that RUN/config.yaml holds everything that was run. No torch import."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from common.config import Config, merge, parse_override, read_recipe, validate
from data_tools.config import PrepareConfig
from envs.tasks.corpus import GeneratedCorpusConfig
from launch.evaluation import EvalRunConfig
from megatron_osim.config import MidtrainConfig
from rl.config import RLConfig

PARTS = ("train", "heldout")


@dataclass(frozen=True)
class Folders:
    """Where the stages of one quickstart put what others read."""

    root: Path

    def corpus(self, part: str) -> Path:
        return self.root / "corpus" / f"{part}.jsonl"

    @property
    def tokenizer(self) -> Path:
        return self.root / "tokenizer" / "hf"

    def shard(self, part: str) -> Path:
        """Prefix of a part's shard."""
        return self.root / "shards" / part

    @property
    def midtrain(self) -> Path:
        return self.root / "midtrain"

    @property
    def model(self) -> Path:
        """HF export of the midtrained model."""
        return self.midtrain / "hf"

    def rl(self, name: str) -> Path:
        return self.root / f"rl-{name}"

    def evaluation(self, name: str) -> Path:
        return self.root / f"eval-{name}"


class TokenizerConfig(Config):
    """The byte-level BPE that is trained on the corpus."""

    vocab_size: int = Field(default=512, ge=260)
    """Tokens of the vocabulary, bytes and special tokens included."""


class QuickstartConfig(Config):
    """The whole pipeline on one machine."""

    corpus: GeneratedCorpusConfig
    tokenizer: TokenizerConfig
    prepare: PrepareConfig
    midtrain: MidtrainConfig
    midtrain_ranks: int = Field(default=2, ge=1)
    """Local processes of midtraining."""
    engine: Literal["auto", "embedded", "sglang"] = "auto"
    """What serves RL rollouts; `eval.model.engine` (embedded) serves evaluations. auto: SGLang where `make sglang`
    has built its environment, else the embedded engine."""
    rl: dict[str, RLConfig]
    """RL runs from the midtrained model, by name."""
    rl_ranks: int = Field(default=1, ge=1)
    """Local processes of each RL run."""
    eval: EvalRunConfig
    """`name` and `model` are set for each evaluation."""

    @model_validator(mode="after")
    def _check(self) -> QuickstartConfig:
        size = self.midtrain.architecture.vocab_size if self.midtrain.architecture else None
        if size != self.tokenizer.vocab_size:
            raise ValueError(
                f"midtrain.architecture.vocab_size {size} must equal tokenizer.vocab_size {self.tokenizer.vocab_size}"
            )
        return self


def resolve(recipe: Path, overrides: Sequence[str], folder: Path) -> QuickstartConfig:
    """The recipe with overrides and the paths of the run folder. Raises ConfigError with every violation."""
    raw = read_recipe(recipe)
    for text in overrides:
        raw = merge(raw, parse_override(text))
    return validate(QuickstartConfig, merge(raw, _paths(raw, folder)), where=str(recipe))


def _paths(raw: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """What each stage reads of the others' output."""
    at = Folders(folder)
    tokenizer, model = str(at.tokenizer), str(at.model)
    source = {part: [{"name": "generated", "prefixes": [str(at.shard(part))]}] for part in PARTS}
    return {
        "prepare": {
            "inputs": [{"glob": str(at.corpus("train"))}],
            "tokenizer": tokenizer,
            "output": str(at.shard("train")),
        },
        "midtrain": {
            "tokenizer": tokenizer,
            "data": {"sources": source["train"], "validation": source["heldout"]},
        },
        "rl": {name: {"model": model} for name in raw.get("rl", {})},
        "eval": {"name": "", "model": {"path": model}},
    }
