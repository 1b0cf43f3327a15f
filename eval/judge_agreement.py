"""Do two judges agree on the same episodes? Unseen-judge re-scoring: a model trained against judge A is scored by B.

Per task: mean gap B − A with its interval (is the training judge lenient to this model?), rank correlation (do they
order answers alike?) and the share of answers that only one of them puts above 0.5. Pure; numpy only.
"""

from __future__ import annotations

import numpy as np

from common.config import Config
from envs.ranks import spearman
from eval.compare import paired_items
from eval.results import Results
from eval.stats import Clustered, Estimate, JointBootstrap


class JudgeAgreement(Config):
    """One task, judge A (first results) and judge B (second)."""

    task: str
    gap: Estimate
    """Mean of B − A over the episodes that both scored."""
    spearman: float | None
    """None when either judge gave one value only."""
    disagree: float
    """Share of episodes that exactly one judge puts above 0.5."""

    def line(self) -> str:
        rank = f"{self.spearman:.2f}" if self.spearman is not None else "undefined (one value only)"
        return (
            f"{self.task}: gap {self.gap.value:+.3f} [{self.gap.low:+.3f}, {self.gap.high:+.3f}] on {self.gap.n} "
            f"episodes, rank correlation {rank}, {self.disagree:.1%} on different sides of 0.5"
        )


def judge_agreement(a: Results, b: Results, *, seed: int = 0) -> tuple[JudgeAgreement, ...]:
    """Agreement on every task that both results scored. The two must hold the same episodes."""
    bootstrap = JointBootstrap(seed)
    found = []
    for task in a.tasks:
        other = next((t for t in b.tasks if t.task == task.task), None)
        pairs = paired_items(task, other) if other else []
        if not pairs:
            continue
        left = np.array([x.value for x, _ in pairs], dtype=np.float64)
        right = np.array([y.value for _, y in pairs], dtype=np.float64)
        statistic = Clustered.of((right - left).tolist(), [x.cluster for x, _ in pairs])
        gap = bootstrap.difference(f"judges/{task.task}", statistic)
        disagree = float(np.mean((left > 0.5) != (right > 0.5)))
        found.append(JudgeAgreement(task=task.task, gap=gap, spearman=spearman(left, right), disagree=disagree))
    return tuple(found)
