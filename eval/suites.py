"""Named lists of tasks. A suite that names a task this version does not have is refused, not shortened."""

from __future__ import annotations

from collections.abc import Mapping

from common.errors import UsageError
from envs import registry
from envs.registry import TaskSpec
from eval.soul_index import ALIGNX, HUMANUAL

SUITES: Mapping[str, tuple[str, ...]] = {
    # Every file of the published SOUL evaluation.
    "soul": (
        "sotopia_hard", "coser", "lifechoices", "userllm", "mirrorbench", "fantom", "hitom", "paratomi", "mistakes",
        "twinvoice", "social_r1", "behaviorchain", "sim_math", "sim_doc",
        *(f"humanual_{part}" for part in HUMANUAL),
        *(f"alignx_{part}" for part in ALIGNX),
        "socsci210", "humanllm",
    ),
    # The ten tasks of the Ditto paper.
    "soul-core": (
        "hitom", "lifechoices", "twinvoice", "paratomi", "sotopia_hard", "mirrorbench", "fantom", "coser", "userllm",
        "mistakes",
    ),
    # What needs neither data nor a judge: generated rows, scored by rule.
    "quick": ("hitom",),
}  # fmt: skip


def resolve(suite: str) -> list[TaskSpec]:
    """The tasks of a suite, or of a comma-separated list. Raises UsageError naming everything that is unknown."""
    names = SUITES.get(suite) or tuple(part.strip() for part in suite.split(",") if part.strip())
    if not names:
        raise UsageError("no task to evaluate", where=f"suite {suite!r}", fix=f"one of {', '.join(SUITES)}")
    known = set(registry.names())
    missing = [name for name in names if ":" not in name and name not in known]
    if missing and suite in SUITES:
        raise UsageError(
            f"this version has no task {', '.join(missing)}",
            where=f"suite {suite!r}",
            fix=f"evaluate those that exist: --suite {','.join(n for n in names if n in known)}",
        )
    if len(set(names)) != len(names):
        raise UsageError("a task is named twice", where=f"suite {suite!r}", fix="name each task once")
    return [registry.get(name) for name in names]
