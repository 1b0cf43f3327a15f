"""Which prompts a step trains on: a pure function of (seed, step), so that resume needs no cursor.

Slots are handed to tasks in proportion to their weights (each slot to the task that is furthest behind its share);
a task's rows follow a permutation per epoch, drawn from (seed, task, epoch). Every row is used once per epoch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from common.errors import UsageError
from common.seeds import derive_rng
from envs.types import Row


@dataclass(frozen=True)
class Source:
    """The rows of one task of the mixture."""

    task: str
    weight: float
    rows: tuple[Row, ...]


class PromptStream:
    """`draw(step)` in any order of steps gives the same prompts."""

    def __init__(self, sources: Sequence[Source], *, groups_per_step: int, seed: int) -> None:
        for source in sources:
            if not source.rows:
                raise UsageError(
                    "no rows to train on", where=f"task {source.task}", fix="check split, rows and where of this task"
                )
        self._sources, self._groups, self._seed = tuple(sources), groups_per_step, seed
        self._slots: list[tuple[int, int]] = []
        """(source, its how-manieth draw) of every slot so far."""
        self._drawn = [0] * len(self._sources)

    def draw(self, step: int) -> list[tuple[str, Row]]:
        """(task, row) of each group of this step."""
        end = (step + 1) * self._groups
        while len(self._slots) < end:
            self._slots.append(self._next_slot())
        return [(self._sources[s].task, self._row(s, i)) for s, i in self._slots[step * self._groups : end]]

    def _next_slot(self) -> tuple[int, int]:
        total = sum(s.weight for s in self._sources)
        given = len(self._slots) + 1
        behind = [given * s.weight / total - n for s, n in zip(self._sources, self._drawn, strict=True)]
        chosen = max(range(len(behind)), key=lambda i: (behind[i], -i))
        self._drawn[chosen] += 1
        return chosen, self._drawn[chosen] - 1

    def _row(self, source: int, index: int) -> Row:
        epoch, place = divmod(index, len(self._sources[source].rows))
        order = list(range(len(self._sources[source].rows)))
        derive_rng(self._seed, "epoch", self._sources[source].task, epoch).shuffle(order)
        return self._sources[source].rows[order[place]]
