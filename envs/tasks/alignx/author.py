"""AlignX's own measure (JinaLeejnl/AlignX @4b86568, `eval/acc.py`): alignment accuracy. Pure.

The authors ask for no letter: a person's preference is predicted when the aligned model raises the log-probability of
the chosen reply above the reference model's by more than it raises the rejected one's. It needs the log-probs of both
replies under two models, so it is no profile of a played episode; feed it with an engine's `score`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

BETA = 0.1


@dataclass(frozen=True)
class LogProbs:
    """Summed log-probability of each reply, given the same context."""

    chosen: float
    rejected: float


def prefers_chosen(policy: LogProbs, reference: LogProbs) -> bool:
    """Whether the implicit reward 0.1 (log p - log p_ref) of the chosen reply is the larger one; a tie is not."""
    chosen = BETA * (policy.chosen - reference.chosen)
    rejected = BETA * (policy.rejected - reference.rejected)
    return chosen > rejected


def alignment_accuracy(pairs: Sequence[tuple[LogProbs, LogProbs]]) -> float:
    """Share of (policy, reference) pairs that prefer the chosen reply. Raises ValueError for none."""
    if not pairs:
        raise ValueError("alignment accuracy of no rows")
    return sum(prefers_chosen(policy, reference) for policy, reference in pairs) / len(pairs)
