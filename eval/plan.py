"""What an evaluation will ask: every row of every task, times epochs, each with a content-hash key.

A plan is data: equal configurations, rows, task versions and models give equal keys, on any machine. The key is what
the store knows an episode by, so that a resumed evaluation repeats nothing that has a score.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from common.errors import UsageError
from common.files import hash_json
from common.seeds import derive_seed
from envs.registry import Profile, TaskSpec, profile_of, with_data
from envs.types import Row
from eval.config import EvalConfig
from eval.control import with_imposters
from eval.suites import resolve

PLAN_VERSION = 1
HASH_CHARS = 16
"""64 bits: enough to name the episodes of any evaluation."""

Opponents = Mapping[str, str]
"""Identity of each further role (judge, partner …): a task's episodes depend on those that it uses."""


@dataclass(frozen=True)
class PlannedEpisode:
    """One play of one row."""

    task: str
    row: Row
    epoch: int
    seed: int
    setting_seed: int
    content: str
    """Hash of task version and row: what pairs episodes of two runs. An imposter keeps the content of its own row."""
    group: str
    """Hash of everything else that determines the episode: model, opponents, scorer, decoding, run seed, control."""
    key: str
    """Hash of group, content and epoch."""


@dataclass(frozen=True)
class PlannedTask:
    """One task with its profile and the episodes to play."""

    spec: TaskSpec
    profile: Profile
    episodes: tuple[PlannedEpisode, ...]
    training_rows: tuple[Row, ...]
    """What the answer-frequency baseline is fitted on."""


@dataclass(frozen=True)
class EvalPlan:
    """Everything an evaluation plays, fixed before the first call: resuming and sharding rest on it."""

    config: EvalConfig
    model: str
    opponents: Opponents
    tasks: tuple[PlannedTask, ...]
    absent: Mapping[str, str] = field(default_factory=dict)
    """Tasks of the suite that are not evaluated, with the reason (only with `missing: skip`)."""

    @property
    def sha(self) -> str:
        """Equal for two runs that ask the same of the same model."""
        return hash_json(
            [PLAN_VERSION, self.config.asked(), self.model, dict(self.opponents), [e.key for e in self.episodes]]
        )

    @property
    def episodes(self) -> list[PlannedEpisode]:
        return [e for t in self.tasks for e in t.episodes]


def make_plan(
    config: EvalConfig,
    model: str,
    *,
    opponents: Opponents | None = None,
    rows: Mapping[str, Sequence[Row]] | None = None,
    training_rows: Mapping[str, Sequence[Row]] | None = None,
) -> EvalPlan:
    """Plan an evaluation.

    rows, training_rows: by task, instead of what the task itself yields for `config.split` and "train" (held-out
    rows of a run that made its own data). Raises one UsageError for everything that is missing, unless the
    configuration says to skip and name it.
    """
    suite = resolve(config.suite)
    absent, found = dict(suite.absent), []
    for spec in _with_local_files(suite.specs, config):
        try:
            asked = _rows(spec, config, (rows or {}).get(spec.name))
        except UsageError as e:
            absent[spec.name] = e.what
            continue
        found.append((spec, asked))
    if absent and (config.missing == "refuse" or not found):
        raise _missing(config, absent, [spec.name for spec, _ in found])
    tasks = [
        _plan_task(spec, asked, config, model, opponents or {}, (training_rows or {}).get(spec.name))
        for spec, asked in found
    ]
    return EvalPlan(config, model, dict(opponents or {}), tuple(tasks), absent)


def _rows(spec: TaskSpec, config: EvalConfig, given: Sequence[Row] | None) -> list[Row]:
    """The rows to ask. Raises UsageError when there are none."""
    if config.control == "imposter" and spec.imposter is None:
        raise UsageError("it has no persona to swap (control: imposter)")
    asked = list(given) if given is not None else list(spec.rows(config.split, config.limit, config.seed))
    if not asked:
        raise UsageError(f"split {config.split!r} has no rows")
    return asked[: config.limit] if config.limit else asked


def _missing(config: EvalConfig, absent: Mapping[str, str], found: Sequence[str]) -> UsageError:
    listing = "".join(f"\n  - {name}: {why}" for name, why in absent.items())
    fix = (
        "give their files (data=FOLDER, or rows.NAME=FILE), or evaluate the others and have these named: missing=skip"
    )
    if not found:
        fix = "give their files: data=FOLDER, or rows.NAME=FILE"
    return UsageError(
        f"{len(absent)} of {len(absent) + len(found)} tasks cannot be evaluated{listing}",
        where=f"suite {config.suite!r}",
        fix=fix,
    )


def _with_local_files(specs: Sequence[TaskSpec], config: EvalConfig) -> list[TaskSpec]:
    """The tasks, reading the person's own files where `config` names some."""
    if unknown := sorted(set(config.rows) - {spec.name for spec in specs}):
        raise UsageError(
            f"rows are given for {', '.join(unknown)}, which is not evaluated",
            where="rows",
            fix=f"tasks of this suite: {', '.join(spec.name for spec in specs)}",
        )
    files = dict(config.rows)
    if config.data is not None:
        if not config.data.is_dir():
            raise UsageError("no such folder", where=f"data={config.data}", fix="give the folder of the tasks' files")
        files = {s.name: path for s in specs if s.read and (path := _file_of(config.data, s.name))} | files
    return [with_data(s, files[s.name], config.split) if s.name in files else s for s in specs]


def _file_of(folder: Path, task: str) -> Path | None:
    """The file or folder of a task, by its name alone or as published (NAME_val.parquet)."""
    stems = (task, f"{task}_val", f"{task}_test")
    for stem in stems:
        for path in (folder / stem, *(folder / f"{stem}{end}" for end in (".parquet", ".jsonl", ".json", ".txt"))):
            if path.exists():
                return path
    return None


def _plan_task(
    spec: TaskSpec,
    rows: Sequence[Row],
    config: EvalConfig,
    model: str,
    opponents: Opponents,
    training: Sequence[Row] | None,
) -> PlannedTask:
    profile: Profile = profile_of(spec, config.profile) if config.profile in spec.profiles else "strict"
    if training is None:
        fit = config.baseline_rows > 0 and "train" in spec.splits
        training = list(spec.rows("train", config.baseline_rows, config.seed)) if fit else []
    group = _group(spec, profile, config, model, opponents)
    played = with_imposters(spec, rows, config.seed) if config.control == "imposter" else rows
    episodes = tuple(
        _plan_episode(spec, row, asked, epoch, group, config.seed)
        for row, asked in zip(rows, played, strict=True)
        for epoch in range(config.epochs)
    )
    if len({e.key for e in episodes}) != len(episodes):
        raise UsageError("the same row twice", where=f"task {spec.name}", fix="remove duplicate rows")
    return PlannedTask(spec, profile, episodes, tuple(training[: config.baseline_rows]))


def _plan_episode(spec: TaskSpec, row: Row, asked: Row, epoch: int, group: str, run_seed: int) -> PlannedEpisode:
    content = content_key(spec, row)
    return PlannedEpisode(
        task=spec.name,
        row=asked,
        epoch=epoch,
        seed=derive_seed(run_seed, "eval", content, epoch),
        setting_seed=derive_seed(run_seed, "setting", content),
        content=content,
        group=group,
        key=episode_key(group, content, epoch),
    )


def roles_of(spec: TaskSpec, profile: Profile = "strict") -> set[str]:
    """The further roles that a task needs an endpoint for: "judge" (or what its specs name), "partner"."""
    others = set(spec.env(profile).seats) - set(spec.seats)
    return {s.role for s in spec.judges_under(profile)} | ({"partner"} if others else set())


def _group(spec: TaskSpec, profile: Profile, config: EvalConfig, model: str, opponents: Opponents) -> str:
    decoding = config.decoding.model_dump(mode="json")
    used = {role: opponents[role] for role in sorted(roles_of(spec, profile)) if role in opponents}
    parts: list[object] = [PLAN_VERSION, profile, config.seed, model, used, decoding]
    asked = spec.judges_under(profile)
    parts += [sorted(judge.sha for judge in asked)] if asked else []
    parts += [config.control] if config.control != "none" else []
    return hash_json(parts)[:HASH_CHARS]


def episode_key(group: str, content: str, epoch: int) -> str:
    """What an episode is known by in results, stores and permalinks."""
    return hash_json([group, content, epoch])


def content_key(spec: TaskSpec, row: Row) -> str:
    """Hash of what is asked: task version and row."""
    return hash_json([spec.name, spec.version, row.sha])[:HASH_CHARS]
