"""Named lists of tasks. What this version or this person's data lacks of a suite is told, never left out.

`soul` follows from the axes of the SOUL-Index, `quick` from the registry: what needs neither data nor a judge.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from common.errors import UsageError
from envs import registry
from envs.registry import TaskSpec
from eval.soul_index import ALIGNX, AXES

SOUL_TASKS: tuple[str, ...] = tuple(
    name
    for tasks in AXES.values()
    for task in tasks
    for name in ([f"alignx_{part}" for part in ALIGNX] if task == "alignx" else [task])
)
"""The 27 files of the published SOUL evaluation."""

SOUL_CORE: tuple[str, ...] = (
    "hitom", "lifechoices", "twinvoice", "paratomi", "sotopia", "mirrorbench", "fantom", "coser", "userllm",
    "mistakes",
)  # fmt: skip
"""The ten tasks of the Ditto paper."""

SUITES = ("soul", "soul-core", "quick")


@dataclass(frozen=True)
class Suite:
    """What a suite resolves to. `absent`: names that this version has no task for, with the reason."""

    specs: tuple[TaskSpec, ...]
    absent: Mapping[str, str]


def resolve(suite: str) -> Suite:
    """The tasks of a suite, or of a comma-separated list. Raises UsageError for names in a list that are unknown."""
    if suite == "quick":
        return Suite(tuple(spec for spec in _registered(SOUL_TASKS) if _plays_at_once(spec)), {})
    names = {"soul": SOUL_TASKS, "soul-core": SOUL_CORE}.get(suite)
    if names is not None:
        absent = {name: "this version has no such task" for name in names if name not in registry.names()}
        return Suite(tuple(_registered(names)), absent)
    listed = tuple(part.strip() for part in suite.split(",") if part.strip())
    if not listed:
        raise UsageError("no task to evaluate", where=f"suite {suite!r}", fix=f"one of {', '.join(SUITES)}")
    if len(set(listed)) != len(listed):
        raise UsageError("a task is named twice", where=f"suite {suite!r}", fix="name each task once")
    return Suite(tuple(registry.get(name) for name in listed), {})


def _registered(names: tuple[str, ...]) -> list[TaskSpec]:
    known = set(registry.names())
    return [registry.get(name) for name in names if name in known]


def _plays_at_once(spec: TaskSpec) -> bool:
    """Rows of its own, one kind of seat, scored by rule."""
    if spec.judges or set(spec.env("strict").seats) - set(spec.seats):
        return False
    try:
        return any(True for _ in spec.rows("test", 1, 0))
    except UsageError:
        return False
