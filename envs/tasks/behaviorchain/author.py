"""BehaviorChain's own measures (O-L1RU1/BehaviorChain @22ba23b, `09_calculate_result.py`). Pure."""

from __future__ import annotations

from collections.abc import Sequence


def read_letter(response: str) -> str:
    """What stands before the last ")", else the first character (as it is, in its own case)."""
    text = response.strip()
    closing = text.rfind(")")
    return text[closing - 1] if closing > 0 else text[:1]


def streaks(results: Sequence[int]) -> list[int]:
    """Length of the run of right answers that ends at each position."""
    runs, run = [], 0
    for right in results:
        run = run + 1 if right else 0
        runs.append(run)
    return runs


def cumulative_accuracy(results: Sequence[int]) -> float:
    """CAM: sum of streaks over its maximum n(n+1)/2."""
    n = len(results)
    return sum(streaks(results)) / (n * (n + 1) / 2) if n else 0.0


def longest_chain(results: Sequence[int]) -> float:
    """Longest run of right answers, as a share of the chain."""
    return max(streaks(results)) / len(results) if results else 0.0
