"""What an evaluation will ask: every row of every task, times epochs, each with a content-hash key.

A plan is data: equal configurations, rows, task versions and models give equal keys, on any machine. The key is what
the store knows an episode by, so that a resumed evaluation repeats nothing that has a score.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from common.errors import UsageError
from common.files import hash_json
from common.seeds import derive_seed
from envs.registry import Profile, TaskSpec, profile_of, with_data
from envs.types import Row
from eval.config import EvalConfig
from eval.suites import resolve

PLAN_VERSION = 1
HASH_CHARS = 16
"""64 bits: enough to name the episodes of any evaluation."""


@dataclass(frozen=True)
class PlannedEpisode:
    """One play of one row."""

    task: str
    row: Row
    epoch: int
    seed: int
    setting_seed: int
    content: str
    """Hash of task version and row: what pairs episodes of two runs."""
    group: str
    """Hash of everything else that determines the episode: model, opponents, scorer, decoding, run seed."""
    key: str
    """Hash of group, content and epoch."""


@dataclass(frozen=True)
class PlannedTask:
    spec: TaskSpec
    profile: Profile
    episodes: tuple[PlannedEpisode, ...]
    training_rows: tuple[Row, ...]
    """What the answer-frequency baseline is fitted on."""


@dataclass(frozen=True)
class EvalPlan:
    config: EvalConfig
    model: str
    opponents: str
    """Identity of partner and judge: other ones give other episodes."""
    tasks: tuple[PlannedTask, ...]

    @property
    def sha(self) -> str:
        """Equal for two runs that ask the same of the same model."""
        return hash_json(
            [PLAN_VERSION, self.config.asked(), self.model, self.opponents, [e.key for e in self.episodes]]
        )

    @property
    def episodes(self) -> list[PlannedEpisode]:
        return [e for t in self.tasks for e in t.episodes]


def make_plan(
    config: EvalConfig,
    model: str,
    *,
    opponents: str = "",
    rows: Mapping[str, Sequence[Row]] | None = None,
    training_rows: Mapping[str, Sequence[Row]] | None = None,
) -> EvalPlan:
    """Plan an evaluation.

    rows, training_rows: by task, instead of what the task itself yields for `config.split` and "train" (held-out
    rows of a run that made its own data). Raises UsageError for unknown tasks and tasks without rows.
    """
    tasks = []
    for spec in _with_local_files(resolve(config.suite), config):
        given = (rows or {}).get(spec.name)
        asked = list(given) if given is not None else list(spec.rows(config.split, config.limit, config.seed))
        asked = asked[: config.limit] if config.limit else asked
        if not asked:
            raise UsageError(
                "no rows", where=f"task {spec.name}, split {config.split}", fix="give rows or another split"
            )
        tasks.append(_plan_task(spec, asked, config, model, opponents, (training_rows or {}).get(spec.name)))
    return EvalPlan(config, model, opponents, tuple(tasks))


def _with_local_files(specs: Sequence[TaskSpec], config: EvalConfig) -> list[TaskSpec]:
    """The tasks, reading the person's own files where `config.rows` names some."""
    if unknown := sorted(set(config.rows) - {spec.name for spec in specs}):
        raise UsageError(
            f"rows are given for {', '.join(unknown)}, which is not evaluated",
            where="rows",
            fix=f"tasks of this suite: {', '.join(spec.name for spec in specs)}",
        )
    return [with_data(s, config.rows[s.name], config.split) if s.name in config.rows else s for s in specs]


def _plan_task(
    spec: TaskSpec,
    rows: Sequence[Row],
    config: EvalConfig,
    model: str,
    opponents: str,
    training: Sequence[Row] | None,
) -> PlannedTask:
    profile: Profile = profile_of(spec, config.profile) if config.profile in spec.profiles else "strict"
    if training is None:
        fit = config.baseline_rows > 0 and "train" in spec.splits
        training = list(spec.rows("train", config.baseline_rows, config.seed)) if fit else []
    decoding = config.decoding.model_dump(mode="json")
    group = hash_json([PLAN_VERSION, profile, config.seed, model, opponents, decoding])[:HASH_CHARS]
    episodes = []
    for row in rows:
        content = content_key(spec, row)
        for epoch in range(config.epochs):
            seed = derive_seed(config.seed, "eval", content, epoch)
            episodes.append(
                PlannedEpisode(
                    task=spec.name,
                    row=row,
                    epoch=epoch,
                    seed=seed,
                    setting_seed=derive_seed(config.seed, "setting", content),
                    content=content,
                    group=group,
                    key=episode_key(group, content, epoch),
                )
            )
    if len({e.key for e in episodes}) != len(episodes):
        raise UsageError("the same row twice", where=f"task {spec.name}", fix="remove duplicate rows")
    return PlannedTask(spec, profile, tuple(episodes), tuple(training[: config.baseline_rows]))


def episode_key(group: str, content: str, epoch: int) -> str:
    """What an episode is known by in results, stores and permalinks."""
    return hash_json([group, content, epoch])


def content_key(spec: TaskSpec, row: Row) -> str:
    """Hash of what is asked: task version and row."""
    return hash_json([spec.name, spec.version, row.sha])[:HASH_CHARS]
