"""The answer-frequency baseline: what one gets by always giving the answer that was most frequent in training.

It knows the training answers, the part of the task (e.g. the order of a question) and the choices offered, but never
the story. Two predictors are fitted, by the text of the answer and by its position among the choices; the one that
is right more often on the training rows is used. It never sees the rows it is measured on.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from envs.registry import TaskSpec
from envs.types import Row

By = Literal["text", "position"]


@dataclass(frozen=True)
class AnswerKey:
    """What a row asks for: the right answer and, where there are some, the choices it is one of."""

    answer: str
    choices: tuple[str, ...] = ()


def answer_key(row: Row) -> AnswerKey | None:
    """The key of a row in the common form (`answer` and optional `choices`); None for open tasks."""
    answer, choices = row.data.get("answer"), row.data.get("choices", ())
    if not isinstance(answer, str) or not isinstance(choices, list | tuple):
        return None
    return AnswerKey(answer, tuple(str(c) for c in choices))


def part_of(spec: TaskSpec, row: Row) -> str | None:
    """The named part of a task that a row belongs to, e.g. "order 2"; None for a task without parts."""
    return spec.part(row) if spec.part is not None else None


@dataclass(frozen=True)
class AnswerFrequency:
    """A fitted predictor."""

    by: By
    counts: dict[str, Counter[str]]
    """Per part of the task."""
    rows: int

    @property
    def note(self) -> str:
        what = "answer" if self.by == "text" else "position among the choices"
        return f"most frequent {what} per part of the task, fitted on {self.rows} training rows"

    def right(self, key: AnswerKey, part: str | None) -> float:
        """Expected score on one row (0 or 1; ties among choices that never occurred share)."""
        counts = self.counts.get(part or "", Counter())
        candidates = _candidates(key, self.by) or {name: name for name in counts}
        if not candidates:
            return 0.0
        best = max(counts.get(name, 0) for name in candidates)
        tied = [label for name, label in candidates.items() if counts.get(name, 0) == best]
        return tied.count(key.answer) / len(tied)


def fit(spec: TaskSpec, rows: Sequence[Row]) -> AnswerFrequency | None:
    """Fit on training rows; None when the task has no common answer form."""
    keyed = [(key, part_of(spec, row)) for row in rows if (key := answer_key(row)) is not None]
    if not keyed:
        return None

    def right(predictor: AnswerFrequency) -> float:
        return sum(predictor.right(key, part) for key, part in keyed)

    return max((_fit(by, keyed) for by in ("text", "position")), key=right)


def _fit(by: By, keyed: Sequence[tuple[AnswerKey, str | None]]) -> AnswerFrequency:
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for key, part in keyed:
        name = next((n for n, label in _candidates(key, by).items() if label == key.answer), key.answer)
        counts[part or ""][name] += 1
    return AnswerFrequency(by, dict(counts), len(keyed))


def _candidates(key: AnswerKey, by: By) -> dict[str, str]:
    """What could be predicted, as name → answer text."""
    return {str(i) if by == "position" else choice: choice for i, choice in enumerate(key.choices)}
