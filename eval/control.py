"""The imposter control: the same questions, asked of the model in the persona of somebody else. Pure.

A task that measures whether a persona is simulated must lose score when the persona is swapped; what it keeps is what
anybody would get (a hint in the question, an average person). The swap is a seeded derangement between clusters.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from common.errors import UsageError
from common.seeds import derive_rng
from envs.registry import TaskSpec
from envs.types import Row


def with_imposters(spec: TaskSpec, rows: Sequence[Row], seed: int) -> list[Row]:
    """Each row with the persona of a row of another cluster; order and ids are kept.

    Rows are sorted by cluster in a seeded order and shifted by the largest cluster's size, so that no row gets a
    persona of its own cluster. Raises UsageError when one cluster holds more than half of the rows.
    """
    if spec.imposter is None:
        raise UsageError("it has no persona to swap", where=f"task {spec.name}", fix="choose a persona task")
    clusters = sorted({row.cluster for row in rows})
    derive_rng(seed, "imposter", spec.name).shuffle(clusters)
    place = {cluster: k for k, cluster in enumerate(clusters)}
    order = sorted(range(len(rows)), key=lambda i: (place[rows[i].cluster], i))
    largest = max(Counter(row.cluster for row in rows).values())
    if 2 * largest > len(rows):
        raise UsageError(
            f"one {spec.cluster} holds {largest} of {len(rows)} rows: there are not enough others to swap with",
            where=f"task {spec.name}",
            fix="evaluate more rows",
        )
    swapped = {i: spec.imposter(rows[i], rows[order[(at + largest) % len(rows)]]) for at, i in enumerate(order)}
    return [swapped[i] for i in range(len(rows))]
