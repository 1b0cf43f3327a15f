"""The task registry: what each task is, measured how, under which licence, and how to make its environment.

Registration is an explicit list (`BUILTIN`); importing a module has no effect. A task package offers a function
`spec() -> TaskSpec`. A third-party task is named `package.module:function` or `FILE.py` and needs no registration.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from common.errors import UsageError, data_errors
from common.files import hash_file
from common.seeds import derive_seed
from envs.env import Env
from envs.judges.spec import JudgeSpec
from envs.types import Episode, Limits, Row, Seat

Axis = Literal["CONV", "SS", "COG", "ROLE", "EVAL"]
"""The five axes of the SOUL-Index."""

Profile = Literal["strict", "soul", "author"]
"""Scorer profiles: ours (used for reward), OdysSim's, the benchmark authors' own rule."""

FUNCTION = "spec"
"""What a task file calls the function that makes its TaskSpec."""

BUILTIN: Mapping[str, str] = {
    "coser": "envs.tasks.coser:spec",
    "fantom": "envs.tasks.fantom:spec",
    "hitom": "envs.tasks.hitom:spec",
    "mmtom": "envs.tasks.mmtom:spec",
    "paratomi": "envs.tasks.paratomi:spec",
    "tombench": "envs.tasks.tombench:spec",
    "hitom_mini": "envs.tasks.hitom:mini_spec",
    "mirrorbench": "envs.tasks.mirrorbench:spec",
    "negotiate": "envs.tasks.negotiate:spec",
    "lifechoices": "envs.tasks.lifechoices:spec",
    "mistakes": "envs.tasks.mistakes:spec",
    "twinvoice": "envs.tasks.twinvoice:spec",
    "social_r1": "envs.tasks.social_r1:spec",
    "behaviorchain": "envs.tasks.behaviorchain:spec",
    "socsci210": "envs.tasks.socsci210:spec",
    "humanllm": "envs.tasks.humanllm:spec",
    "humanual_book": "envs.tasks.humanual:book_spec",
    "humanual_chat": "envs.tasks.humanual:chat_spec",
    "humanual_email": "envs.tasks.humanual:email_spec",
    "humanual_news": "envs.tasks.humanual:news_spec",
    "humanual_opinion": "envs.tasks.humanual:opinion_spec",
    "humanual_politics": "envs.tasks.humanual:politics_spec",
    "alignx_demo": "envs.tasks.alignx:demo_spec",
    "alignx_pair": "envs.tasks.alignx:pair_spec",
    "alignx_ugc": "envs.tasks.alignx:ugc_spec",
    "alignx_arbitrary": "envs.tasks.alignx:arbitrary_spec",
    "alignx_history16": "envs.tasks.alignx:history16_spec",
    "sotopia": "envs.tasks.sotopia:spec",
    "sotopia_hard": "envs.tasks.sotopia:hard_spec",
    "sotopia_selfplay": "envs.tasks.sotopia:selfplay_spec",
    "userllm": "envs.tasks.userllm:spec",
    "rewardbench2": "envs.tasks.judging:rewardbench_spec",
    "rm_r1": "envs.tasks.judging:rm_r1_spec",
    "tau_usi": "envs.tasks.tau_usi:spec",
    "sim_math": "envs.tasks.sim_arena:math_spec",
    "sim_doc": "envs.tasks.sim_arena:doc_spec",
}


@dataclass(frozen=True)
class Metric:
    """The task's headline number."""

    name: str
    higher_is_better: bool = True
    low: float = 0.0
    high: float = 1.0

    @property
    def arrow(self) -> str:
        return "↑" if self.higher_is_better else "↓"


@dataclass(frozen=True)
class FeedbackPolicy:
    """Where verbal feedback comes from, and whether its writer may see the reference answer (reports show it)."""

    kind: Literal["none", "rule", "critic"] = "none"
    sees_gold: bool = False


@dataclass(frozen=True)
class Source:
    """Where real rows come from. The product ships none of them; a person points at a local copy."""

    url: str
    commit: str = ""
    sha256: str = ""
    note: str = ""


@dataclass(frozen=True)
class SurveyAnswer:
    """One answer to one closed question, by the policy and by the person it stands for."""

    question: str
    """What was asked of whom: answers to one question form one distribution (study, condition and item)."""
    answer: float | str | None
    """The policy's, on the question's own scale or as a category; None: it could not be read."""
    human: float | str


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True)
class TaskSpec:
    """Everything the rest of the system knows about a task.

    rows(split, limit, seed) yields rows; equal arguments give equal rows; splits share no cluster. Generated tasks
    know "train" and "test" at least. env(profile) makes the environment; `seats` are its policy seats: the ones that
    are trained or evaluated (the others are partners).
    """

    name: str
    axis: Axis
    version: int
    metric: Metric
    cluster: str
    """What a row's `cluster` is, e.g. "story": the unit that statistics resample."""
    licence: str
    env: Callable[[Profile], Env[Any]]
    rows: Callable[[str, int | None, int], Iterable[Row]]
    seats: tuple[Seat, ...]
    profiles: tuple[Profile, ...] = ("strict",)
    feedback: FeedbackPolicy = FeedbackPolicy()
    limits: Limits = DEFAULT_LIMITS
    splits: tuple[str, ...] = ("train", "test")
    judges: tuple[JudgeSpec, ...] = ()
    """Every judge and critic the environment may ask."""
    unjudged: tuple[Profile, ...] = ()
    """Profiles whose scores ask no judge: no endpoint is needed for one (see `judges_under`)."""
    source: Source | None = None
    aggregate: Callable[[Sequence[Episode]], Mapping[str, float]] | None = None
    """Dataset-level numbers that are no mean over episodes (e.g. a whole set of questions right)."""
    part: Callable[[Row], str] | None = None
    """The named part of the task that a row belongs to, e.g. "order 2": results are reported for each part too."""
    private: Callable[[Row], Mapping[Seat, Sequence[str]]] | None = None
    """Texts that only this seat may see; `check` searches every other view for them."""
    read: Callable[[Path], Iterable[Row]] | None = None
    """Reads a person's copy of the published data (see `with_data`)."""
    examples: Callable[[], Sequence[Row]] | None = None
    """A few rows of our own making, in the form of the published ones: for `check`, where `rows` has no data."""
    bind: Callable[[Path], Callable[[Profile], Env[Any]]] | None = None
    """The environment of a person's files, where it needs more of them than the rows hold (see `with_data`)."""
    samples: Callable[[Row, Seat], Sequence[str]] | None = None
    """Plausible and wrong answers for `check` and `osim task play`; generic ones are used without it."""
    imposter: Callable[[Row, Row], Row] | None = None
    """(row, other) gives the row with the other row's persona and everything else unchanged: the imposter control."""
    human: Callable[[Row], Sequence[str]] | None = None
    """What a person really said in the row's situation, turn by turn: the human side of human-likeness."""
    survey: Callable[[Episode], SurveyAnswer | None] | None = None
    """The closed question that an episode answered: distributions per question are compared with people's."""

    def __post_init__(self) -> None:
        if not self.seats or not self.profiles or "strict" not in self.profiles or self.version < 1:
            raise UsageError(
                "a task has at least one policy seat, a version from 1 and the profile 'strict'",
                where=f"task {self.name}",
                fix="correct its spec()",
            )
        if unknown := sorted(set(self.unjudged) - set(self.profiles)):
            raise UsageError(
                f"unjudged names {', '.join(unknown)}, which is no profile of the task",
                where=f"task {self.name}",
                fix="correct its spec()",
            )

    def judges_under(self, profile: Profile) -> tuple[JudgeSpec, ...]:
        """Those of `judges` that may be asked under `profile`. Critics are asked for feedback, not for scores."""
        return tuple(j for j in self.judges if j.role == "critic" or profile not in self.unjudged)


def names() -> list[str]:
    """Names of the built-in tasks, sorted."""
    return sorted(BUILTIN)


def get(name: str) -> TaskSpec:
    """The task of this name; outside osim `package.module:function` or `FILE.py[:function]`. Raises UsageError."""
    path, _, attribute = name.partition(".py")
    if name.endswith(".py") or attribute.startswith(":"):
        return _made(_from_file(Path(f"{path}.py"), attribute[1:] or FUNCTION), name)
    target = BUILTIN.get(name, name if ":" in name else None)
    if target is None:
        near = difflib.get_close_matches(name, names(), n=3, cutoff=0.4)
        fix = f"did you mean {' or '.join(near)}?" if near else f"known tasks: {', '.join(names())}"
        raise UsageError(f"unknown task {name!r}", where="task registry", fix=fix)
    module_name, _, attribute = target.partition(":")
    try:
        make = getattr(importlib.import_module(module_name), attribute)
    except (ModuleNotFoundError, AttributeError) as e:
        raise UsageError(
            f"cannot load task {name!r}: {e}",
            where=target,
            fix="name it package.module:function, importable from here, or FILE.py",
        ) from e
    return _made(make, name)


def _from_file(path: Path, attribute: str) -> Callable[[], Any]:
    """`attribute` of a Python file that need not be importable."""
    if not path.is_file():
        raise UsageError("no such file", where=str(path), fix="give the path of a task file (docs/add-a-task.md)")
    # Equal files are one module: dataclasses of two loads would be different types.
    module_name = f"osim_task_{path.stem}_{hash_file(path)[:12]}"
    if module_name not in sys.modules:
        found = importlib.util.spec_from_file_location(module_name, path)
        if found is None or found.loader is None:
            raise UsageError("not a Python file", where=str(path), fix="give a .py file")
        module = importlib.util.module_from_spec(found)
        sys.modules[module_name] = module
        try:
            found.loader.exec_module(module)
        except BaseException:
            del sys.modules[module_name]
            raise
    if not callable(make := getattr(sys.modules[module_name], attribute, None)):
        raise UsageError(f"no function {attribute!r}", where=str(path), fix="define it, or give FILE.py:function")
    return make


def _made(make: Callable[[], Any], name: str) -> TaskSpec:
    spec = make()
    if not isinstance(spec, TaskSpec):
        raise UsageError("no TaskSpec came back", where=f"task {name}", fix="return envs.registry.TaskSpec(...)")
    return spec


def with_data(spec: TaskSpec, path: Path, split: str = "test") -> TaskSpec:
    """The task with rows from `path` as `split`: a limit takes a subset that depends on the seed only.

    Raises UsageError for tasks that read no files.
    """
    read = spec.read
    if read is None:
        raise UsageError("this task makes its own rows", where=f"task {spec.name}", fix="leave the data path out")

    def rows(asked: str, limit: int | None, seed: int) -> list[Row]:
        if asked != split:
            raise UsageError(f"{path} holds split {split!r}", where=f"task {spec.name}", fix=f"ask for {split!r}")
        with data_errors(str(path), fix="give the published files", what=f"not data of {spec.name}"):
            found = sorted(read(path), key=lambda row: derive_seed(seed, spec.name, row.id))
        return found[:limit]

    with data_errors(str(path), fix="give the published files", what=f"not data of {spec.name}"):
        env = spec.env if spec.bind is None else spec.bind(path)
    return replace(spec, rows=rows, splits=(split,), env=env, examples=None)


def no_rows(name: str) -> Callable[[str, int | None, int], Iterable[Row]]:
    """The row source of a task whose data a person must bring."""

    def rows(split: str, limit: int | None, seed: int) -> Iterable[Row]:
        raise UsageError(
            f"no split {split!r} here: its licence or host does not let osim ship the data",
            where=f"task {name}",
            fix="fetch it from spec().source and give its path as the task's data",
        )

    return rows


def profile_of(spec: TaskSpec, profile: str) -> Profile:
    """`profile` if the task has it. Raises UsageError."""
    for known in spec.profiles:
        if known == profile:
            return known
    raise UsageError(
        f"no scorer profile {profile!r}", where=f"task {spec.name}", fix=f"one of {', '.join(spec.profiles)}"
    )
