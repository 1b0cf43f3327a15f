"""Conformance of a task: what `osim task check NAME` runs, for ours and third-party ones alike.

Checked on the first rows: the row source is repeatable and its ids unique; start, turn, view, hear, score and
feedback are pure (equal inputs, equal outputs; a given state is not changed); views only extend; scores lie in [0, 1]
for known seats; play is deterministic; judges and critics that are asked are declared, and so is feedback that rests
on the answer; no private text reaches another seat's view, and a task with several seats says what is private; under
`strict` an empty turn or a copied prompt never earns the full score.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from common.seeds import derive_rng
from envs.env import Done, Env, Feedback, FeedbackAsk, FormatError, JudgeAsk, JudgePanel
from envs.judges.base import JudgeFailed, Verdict
from envs.play import play
from envs.players.base import Ask
from envs.players.scripted import ScriptedPlayer
from envs.registry import Profile, TaskSpec
from envs.types import Episode, FailureReason, Limits, Row, Score, Seat, Unscored

ROWS = 8
GENERIC_SAMPLES = (
    "",
    "yes",
    "<answer>A</answer>",
    "I would like to think about it.",
    '{"score": 10}',
    "é\u202e\x00 \U0001f600",
)
MAX_TURNS = 12
OUT_OF_BOUNDS = "a score is a number in [0, 1]"
"""How `envs.types.Score` refuses a value."""
EXPLOITS: Mapping[str, Callable[[Ask], str]] = {
    "an empty turn": lambda ask: "",
    "a copy of the prompt": lambda ask: "\n".join(message.content for message in ask.view),
}


@dataclass(frozen=True)
class Violation:
    """One broken rule, and where."""

    rule: str
    detail: str


class NoJudge:
    """Answers every ask with a failure: what an environment must survive."""

    def __init__(self) -> None:
        self.asked: set[str] = set()

    async def ask(self, spec: str, fields: Mapping[str, Any], *, seed: int) -> Verdict | JudgeFailed:
        self.asked.add(spec)
        return JudgeFailed("task check asks no judge")


def check(spec: TaskSpec, *, rows: Sequence[Row] | None = None) -> list[Violation]:
    """All violations found; empty for a conforming task. `rows` replaces the task's own source.

    A task whose data a person must bring is checked on its own examples.
    """
    if rows is None and spec.read is not None and spec.examples is not None:
        rows = spec.examples()
    found = list(rows[:ROWS]) if rows is not None else []
    violations: list[Violation] = []
    if rows is None:
        for split in spec.splits:
            violations += _check_source(spec, split)
            found += islice(spec.rows(split, ROWS, 0), ROWS)
    if not found:
        return [*violations, Violation("rows", "the task gives no rows")]
    if spec.private is None and len(spec.env(spec.profiles[0]).seats) > 1:
        violations.append(Violation("privacy", "several seats, and `private` does not say what each may keep"))
    for profile in spec.profiles:
        env = spec.env(profile)
        if unknown := set(spec.seats) - set(env.seats):
            violations.append(Violation("seats", f"the environment does not know {sorted(unknown)}"))
            continue
        for row in found:
            violations += _check_row(spec, env, profile, row)
            if profile == "strict":
                violations += _check_exploits(spec, env, row)
    return violations


def leaks(spec: TaskSpec, rows: Sequence[Row]) -> list[Violation]:
    """Private texts of `rows` that reach another seat's view: the string search alone, for many rows."""
    env = spec.env(spec.profiles[0])
    return [v for row in rows for v in _check_privacy(spec, asyncio.run(_play(spec, env, row, 0, 1, NoJudge())))]


def _check_source(spec: TaskSpec, split: str) -> Iterator[Violation]:
    one, two = (list(islice(spec.rows(split, ROWS, 0), ROWS)) for _ in range(2))
    if one != two:
        yield Violation("rows", f"split {split}: equal arguments gave different rows")
    if len({row.id for row in one}) != len(one):
        yield Violation("rows", f"split {split}: row ids are not unique")
    if wrong := {row.task for row in one} - {spec.name}:
        yield Violation("rows", f"split {split}: rows say task {sorted(wrong)}")


def _check_row(spec: TaskSpec, env: Env[Any], profile: Profile, row: Row) -> Iterator[Violation]:
    where = f"{row.prompt_id}: "
    count, buggy = len(_samples(spec, row, env.seats[0])), False
    for first, stride in [(i, 0) for i in range(count)] + [(0, 1), (1, 2)]:
        judge = NoJudge()
        one, two = (asyncio.run(_play(spec, env, row, first, stride, judge)) for _ in range(2))
        if replace(one, wall_s=0.0) != replace(two, wall_s=0.0):
            yield Violation("determinism", f"{where}two plays with the same seed and script differ")
        for seat, outcome in one.outcomes.items():
            if isinstance(outcome, Unscored) and outcome.reason == FailureReason.BUG:
                buggy = True
                rule = "bounds" if OUT_OF_BOUNDS in outcome.detail else "bug"
                yield Violation(rule, f"{where}{seat}: {outcome.detail}")
        if missing := set(spec.seats) - set(one.outcomes):
            yield Violation("scores", f"{where}no outcome for {sorted(missing)}")
        if undeclared := judge.asked - {j.id for j in spec.judges_under(profile)}:
            said = f"asks {sorted(undeclared)} under {profile}, which the spec does not declare"
            yield Violation("judges", where + said)
        yield from _check_privacy(spec, one)
    if not buggy:
        yield from _check_purity(env, row, where, _samples(spec, row, env.seats[0]))
        yield from _check_feedback(spec, env, row, where)


def _check_exploits(spec: TaskSpec, env: Env[Any], row: Row) -> Iterator[Violation]:
    """Policies that behave in no way: what they earn, anybody would."""
    partners = {seat: _sensible(spec, row, seat) for seat in env.seats if seat not in spec.seats}
    for name, policy in EXPLOITS.items():
        players = {**partners, **{seat: ScriptedPlayer(policy) for seat in spec.seats}}
        episode = asyncio.run(play(env, row, players, judge=NoJudge(), seed=0, limits=_limits(spec)))
        for seat in spec.seats:
            outcome = episode.outcomes.get(seat)
            if isinstance(outcome, Score) and outcome.value >= 1.0:
                yield Violation("exploit", f"{row.prompt_id}: {name} earns {seat} the full score")


async def _play(spec: TaskSpec, env: Env[Any], row: Row, first: int, stride: int, judge: NoJudge) -> Episode:
    """At turn t every seat says its sample number `first + t * stride`."""
    players = {seat: _speaker(spec, row, seat, first, stride) for seat in env.seats}
    return await play(env, row, players, judge=judge, seed=first, limits=_limits(spec), want_feedback=True)


def _speaker(spec: TaskSpec, row: Row, seat: Seat, first: int, stride: int) -> ScriptedPlayer:
    lines = _samples(spec, row, seat)
    return ScriptedPlayer(lambda ask: lines[(first + ask.turn * stride) % len(lines)])


def _sensible(spec: TaskSpec, row: Row, seat: Seat) -> ScriptedPlayer:
    """A partner who says only what the task gave as samples."""
    lines = (spec.samples(row, seat) if spec.samples is not None else ()) or ("yes",)
    return ScriptedPlayer(lambda ask: lines[ask.turn % len(lines)])


def _limits(spec: TaskSpec) -> Limits:
    return Limits(max_turns=min(MAX_TURNS, spec.limits.max_turns))


def _samples(spec: TaskSpec, row: Row, seat: Seat) -> Sequence[str]:
    own = spec.samples(row, seat) if spec.samples is not None else ()
    return (*own, *GENERIC_SAMPLES)


def _check_privacy(spec: TaskSpec, episode: Episode) -> Iterator[Violation]:
    if spec.private is None:
        return
    for owner, texts in spec.private(episode.row).items():
        told = " ".join(say.text for say in episode.says if say.seat == owner)
        for seat, view in episode.views.items():
            for text in texts:
                if seat != owner and text not in told and any(text in m.content for m in view):
                    yield Violation(
                        "privacy", f"{episode.row.prompt_id}: {seat} sees what only {owner} may see: {text[:80]!r}"
                    )


def _check_purity(env: Env[Any], row: Row, where: str, lines: Sequence[str]) -> Iterator[Violation]:
    """Call everything twice on one path through the episode, and compare the state before and after."""
    state = env.start(row, derive_rng(0, row.prompt_id))
    if state != env.start(row, derive_rng(0, row.prompt_id)):
        yield Violation("purity", f"{where}start gives unequal states for equal inputs (or states lack equality)")
        return
    for turn in range(MAX_TURNS):
        before = copy.deepcopy(state)
        seats = env.turn(state)
        for seat in env.seats:
            if tuple(env.view(state, seat)) != tuple(env.view(state, seat)):
                yield Violation("purity", f"{where}view of {seat} differs between two calls")
        one, two = (_ruled(env, state) for _ in range(2))
        if one != two or not all(isinstance(o, Score | Unscored) for o in one.values()):
            yield Violation("purity", f"{where}score differs between two calls or is no outcome")
        if isinstance(seats, Done):
            break
        line = lines[turn % len(lines)]
        heard, again = env.hear(state, seats[0], line), env.hear(state, seats[0], line)
        if heard != again:
            yield Violation("purity", f"{where}hear gives unequal states for equal inputs")
        if state != before:
            yield Violation("purity", f"{where}a given state was changed")
        if isinstance(heard, FormatError):
            break
        state = heard


def _check_feedback(spec: TaskSpec, env: Env[Any], row: Row, where: str) -> Iterator[Violation]:
    """What every sample earns in words: pure, and of the kind that the spec declares."""
    lines, declared, judges = _samples(spec, row, env.seats[0]), spec.feedback, {j.id for j in spec.judges}
    for first in range(len(lines)):
        state = _walked(env, row, (*lines[first:], *lines[:first]))
        for seat in spec.seats:
            one, two = env.feedback(state, seat), env.feedback(state, seat)
            if _told(one) != _told(two):
                yield Violation("purity", f"{where}feedback for {seat} differs between two calls")
            if one is None:
                continue
            asks = isinstance(one, FeedbackAsk)
            if declared.kind == "none" or (asks and declared.kind != "critic"):
                said = "a critic's" if asks else "by rule"
                yield Violation("feedback", f"{where}there is feedback {said}, the spec declares {declared.kind!r}")
            if one.sees_gold and not declared.sees_gold:
                yield Violation("feedback", f"{where}feedback rests on the answer, and the spec does not say so")
            if isinstance(one, FeedbackAsk) and one.spec not in judges:
                yield Violation("judges", f"{where}asks the critic {one.spec!r}, which the spec does not declare")


def _told(feedback: Feedback | FeedbackAsk | None) -> Any:
    """What can be compared of two answers: how a critic's reply is read is a function."""
    return replace(feedback, text=str) if isinstance(feedback, FeedbackAsk) else feedback


def _walked(env: Env[Any], row: Row, lines: Sequence[str]) -> Any:
    """The last state of an episode in which turn t is line t, whoever speaks."""
    state = env.start(row, derive_rng(0, row.prompt_id))
    for turn in range(MAX_TURNS):
        seats = env.turn(state)
        if isinstance(seats, Done):
            break
        heard = env.hear(state, seats[0], lines[turn % len(lines)])
        if isinstance(heard, FormatError):
            break
        state = heard
    return state


def _ruled(env: Env[Any], state: Any) -> dict[Seat, Any]:
    """The outcomes that need no judge."""
    return {s: o for s, o in env.score(state).items() if not isinstance(o, JudgeAsk | JudgePanel)}
