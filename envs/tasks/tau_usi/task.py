"""What the registry lists about tau-USI: generated requests, tau-bench's own, and the population's numbers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean

from common.files import hash_json
from envs.registry import FeedbackPolicy, Metric, Profile, Source, TaskSpec
from envs.tasks.schema import data_of
from envs.tasks.talk import only_own
from envs.tasks.tau_usi import survey
from envs.tasks.tau_usi.env import AGENT, CUSTOMER, DOMAINS, MAX_MESSAGES, TauEnv
from envs.tasks.tau_usi.features import DIMENSIONS
from envs.tasks.tau_usi.generator import cases
from envs.tasks.tau_usi.prompts import JUDGE, STOP
from envs.tasks.tau_usi.reliability import pass_hat_k
from envs.tasks.tau_usi.rows import NAME, Case, case_row, read_rows, read_worlds
from envs.tasks.tau_usi.usi import Talked, usi
from envs.types import Episode, Limits, Row, Score, Seat

ROWS_WITHOUT_LIMIT = 200


def spec() -> TaskSpec:
    """The registry's entry."""
    return TaskSpec(
        name=NAME,
        axis="CONV",
        version=1,
        metric=Metric("faithful and natural customer"),
        cluster="customer",
        licence="generated rows: as osim; tau-bench: MIT; human annotations (cmu-lti/tau-usi): CC BY-NC 4.0",
        env=TauEnv,
        rows=rows,
        read=read_rows,
        bind=_bind,
        examples=lambda: [*rows("train", 3, 0), *rows("test", 3, 0)],
        seats=(CUSTOMER,),
        profiles=("strict", "author"),
        feedback=FeedbackPolicy("rule"),
        limits=Limits(max_turns=6 * MAX_MESSAGES, max_tokens=1024),
        judges=(JUDGE,),
        unjudged=("author",),
        source=Source(
            "https://github.com/sierra-research/tau-bench", "59a200c", note="tau_bench/envs: tasks and databases"
        ),
        aggregate=population,
        part=lambda row: str(row.data["domain"]),
        private=_private,
        samples=_samples,
    )


def rows(split: str, limit: int | None, seed: int) -> list[Row]:
    """The first `limit` generated requests of a split; "train" and "test" share none."""
    count = ROWS_WITHOUT_LIMIT if limit is None else limit
    return [
        case_row(case, hash_json(case)[:16], f"{split}, request {n}")
        for n, case in enumerate(cases(split, count, seed))
    ]


def population(episodes: Sequence[Episode]) -> Mapping[str, float]:
    """pass^k over requests tried k times or more; against people, D1 to D4, calibration, survey and USI
    (means over annotators)."""
    tries: dict[str, list[bool]] = defaultdict(list)
    batches: dict[int, list[tuple[Talked, Talked]]] = defaultdict(list)
    for episode in episodes:
        outcome = episode.outcomes.get(CUSTOMER)
        if not isinstance(outcome, Score) or "success" not in outcome.parts:
            continue
        tries[episode.row.id].append(outcome.parts["success"] == 1.0)
        for batch, human in enumerate(data_of(Case, episode.row).humans):
            real = Talked(human.features, human.success, human.survey, human.difficulty)
            batches[batch].append((real, _talked(outcome.parts)))
    most = min((len(found) for found in tries.values()), default=0)
    passed = {
        f"pass^{k}": fmean(pass_hat_k(len(found), sum(found), k) for found in tries.values())
        for k in range(1, most + 1)
    }
    scores = [usi([r for r, _ in pairs], [s for _, s in pairs]) for pairs in batches.values()]
    names = dict.fromkeys(name for score in scores for name in score)
    return {**passed, **{name: fmean(score[name] for score in scores if name in score) for name in names}}


def _talked(parts: Mapping[str, float]) -> Talked:
    names = [name for features in DIMENSIONS.values() for name in features]
    answers = {n: int(parts[f"survey {n}"]) for n in survey.QUESTIONS if f"survey {n}" in parts}
    return Talked({n: parts[n] for n in names if n in parts}, parts["success"] == 1.0, answers)


def _bind(path: Path) -> Callable[[Profile], TauEnv]:
    worlds = read_worlds(path)
    return lambda profile: TauEnv(profile, worlds)


def _private(row: Row) -> Mapping[Seat, Sequence[str]]:
    case = data_of(Case, row)
    policy, _ = DOMAINS[case.domain]
    return only_own({CUSTOMER: [case.instruction], AGENT: [policy]}, [])


def _samples(row: Row, seat: Seat) -> Sequence[str]:
    case = data_of(Case, row)
    if seat == CUSTOMER:
        return ["hi, i need help with something", "yes please go on", STOP, '{"task_success": 4, "reuse": 9}']
    first = case.actions[0] if case.actions else None
    act = first.model_dump_json() if first else "{}"
    return [
        f"<call>{act}</call>",
        "<call>{}</call>",
        "Which order is it?",
        '<call>{"name": "x", "arguments": {}}</call>',
    ]
