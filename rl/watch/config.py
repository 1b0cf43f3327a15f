"""What a run watches beside its rewards, and what it does about it. Imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from common.config import Config
from envs.client.config import ClientConfig

Action = Literal["log", "stop"]
"""What follows an alarm: the metric alone, or the run stops (exit 3) with what it has trained saved."""


class AnchorConfig(Config):
    """A fixed set of judged episodes that the judge scores again and again: its drift, apart from the policy's."""

    run: Path
    """Run folder (evaluation or training) whose ledger has the episodes and the scores they were given."""
    count: int = Field(default=50, ge=2)
    """Episodes that are scored again."""
    every_steps: int = Field(default=10, ge=1)
    """Steps between two scorings."""
    max_shift: float = Field(default=0.1, gt=0)
    """Alarm when the mean score moves by more than this, or when fewer than half of the anchors get a verdict."""
    action: Action = "log"
    """What follows an alarm."""


class SecondJudgeConfig(Config):
    """Another judge scores a sample of each step's episodes: does the reward mean the same to it?"""

    client: ClientConfig
    """The other judge: its `judge` endpoint."""
    share: float = Field(default=0.05, gt=0, le=1)
    """Share of a step's episodes that it scores."""
    max_gap: float = Field(default=0.25, gt=0)
    """Alarm when the first judge's mean exceeds the second's by more than this."""
    action: Action = "log"
    """What follows an alarm."""


class HumanReferenceConfig(Config):
    """Turns of people from the same tasks: rewards that rise while turns stop sounding human show as distances."""

    turns: Path
    """JSONL with `text` and `conversation`."""
    every_steps: int = Field(default=5, ge=1)
    """Steps between two measurements."""


class WatchConfig(Config):
    """Everything is off unless configured; detectors are always logged."""

    stop_on: dict[str, float] = Field(default_factory=dict)
    """Detector -> share of turns with a finding above which the run stops."""
    anchors: AnchorConfig | None = None
    second_judge: SecondJudgeConfig | None = None
    human_reference: HumanReferenceConfig | None = None
    max_hours: float | None = Field(default=None, gt=0)
    """Time of all steps so far above which the run stops, saved and resumable. Dollars: client.max_usd."""
