"""Algorithms: scored attempts in, weighted training samples out. Numpy only; the trainer never learns their names.

To add one: a module with a Config (its `name` is the key in recipes) and a class with `needs` and `weigh`, and one
line in each of the two tables below.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from rl.algorithms.base import Algorithm
from rl.algorithms.expert_sft import ExpertSFT, ExpertSFTConfig
from rl.algorithms.grpo import GRPO, GRPOConfig
from rl.algorithms.opd import OPD, OPDConfig
from rl.algorithms.verbal_feedback import VerbalFeedback, VerbalFeedbackConfig

AlgorithmConfig = Annotated[
    GRPOConfig | VerbalFeedbackConfig | OPDConfig | ExpertSFTConfig, Field(discriminator="name")
]


def build_algorithm(config: GRPOConfig | VerbalFeedbackConfig | OPDConfig | ExpertSFTConfig) -> Algorithm:
    """The algorithm of a validated configuration."""
    match config:
        case GRPOConfig():
            return GRPO(config)
        case VerbalFeedbackConfig():
            return VerbalFeedback(config)
        case OPDConfig():
            return OPD(config)
        case ExpertSFTConfig():
            return ExpertSFT(config)
