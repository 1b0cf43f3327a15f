"""Configuration of `osim eval run`. Which model is evaluated is launch's business; here is what it is asked.

Everything that changes what is asked or how it is scored is part of the plan's hash; how fast it is asked is not.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from common.config import Config
from common.files import hash_json

HOW_NOT_WHAT = (
    *("concurrency", "statistics", "min_coverage", "attempts", "missing"),
    # Paths say nothing: the rows themselves are hashed.
    *("rows", "data"),
)


class DecodingConfig(Config):
    """How answers are drawn."""

    temperature: float = Field(default=0.0, ge=0)
    """0 is greedy, as in the published SOUL numbers."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Draw from the smallest set of tokens with this probability; 1: from all."""
    top_k: int = -1
    """-1: all tokens. An API model gets top_p and top_k only where they are set: not every server knows them."""
    max_tokens: int = Field(default=512, ge=1)
    """Per turn."""


class ConcurrencyConfig(Config):
    """Episodes in flight. Adaptive: it starts at `start`, grows while all goes well and shrinks on failures."""

    limit: int = Field(default=64, ge=1)
    """Episodes in flight at most."""
    start: int = Field(default=16, ge=1)
    """Episodes in flight at first."""
    adaptive: bool = True
    """False: always `limit`."""


class StatisticsConfig(Config):
    """95 % intervals: one joint cluster bootstrap over all tasks."""

    draws: int = Field(default=4_000, ge=200)
    """Bootstrap draws."""


class EvalConfig(Config):
    """One evaluation."""

    suite: str = "quick"
    """soul, soul-core, quick, or task names separated by commas."""
    split: str = "test"
    """Split of the tasks' rows."""
    limit: int | None = Field(default=None, ge=1)
    """Rows per task; None takes all that the task has."""
    epochs: int = Field(default=1, ge=1)
    """Plays of each row, with different seeds."""
    seed: int = 0
    """Of rows, sampling and statistics."""
    profile: Literal["strict", "soul", "author"] = "strict"
    """Scorer profile; a task without it is scored by `strict`, and the results say so."""
    decoding: DecodingConfig = DecodingConfig()
    concurrency: ConcurrencyConfig = ConcurrencyConfig()
    statistics: StatisticsConfig = StatisticsConfig()
    min_coverage: float = Field(default=0.98, ge=0, le=1)
    """Share of planned episodes of each task that must have a score; below it the run stops with exit 3."""
    attempts: int = Field(default=2, ge=1)
    """Plays of an episode that ends without a score, in one run."""
    baseline_rows: int = Field(default=1_000, ge=0)
    """Training rows that the answer-frequency baseline is fitted on; 0 leaves it out."""
    rows: dict[str, Path] = Field(default_factory=dict)
    """Local files of tasks whose rows are not shipped, by task name."""
    data: Path | None = None
    """Folder with such files, found by task name: NAME, NAME.jsonl, NAME_val.parquet, NAME_test.json …"""
    missing: Literal["refuse", "skip"] = "refuse"
    """Tasks of the suite that this version lacks or that have no rows here. skip: go on; the results name them."""
    control: Literal["none", "imposter"] = "none"
    """imposter: every row gets the persona of another row; compare with the run without it."""

    @model_validator(mode="after")
    def _epochs_need_sampling(self) -> EvalConfig:
        if self.epochs > 1 and self.decoding.temperature == 0:
            raise ValueError("epochs > 1 at temperature 0 plays the same episode again; set decoding.temperature > 0")
        return self

    def asked(self) -> dict[str, Any]:
        """What determines questions, answers and scores, without what determines speed."""
        return self.model_dump(mode="json", exclude=set(HOW_NOT_WHAT))

    @property
    def sha(self) -> str:
        return hash_json(self.asked())
