"""`play`: drive one environment with one player per seat, a judge, limits and a seed. The only place with I/O.

What happens on failure (spec: one table, training and evaluation alike):
* a policy output that the environment cannot act on: Score(0, format_error) for that seat; the others had a failing
  partner and are Unscored(partner_failed);
* turn or token limit: the episode ends and is scored as it is;
* engine, partner or judge failure, a timeout, a bug in a task: Unscored with the reason; never a number;
* an OsimError about the whole run (budget, configuration) and cancellation pass through.

Seeds are stateless: a turn's seed depends on the episode's seed, the seat and the turn; the environment's own draws
on the row and `setting_seed` only, so that all samples of a group face the same situation.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from common.errors import UsageError
from common.files import hash_json
from common.seeds import derive_rng, derive_seed
from common.text import well_formed
from envs.boundary import Bug, contain
from envs.deadline import Deadlines
from envs.engine import EngineError
from envs.env import Done, Env, FormatError, JudgeAsk, JudgePanel
from envs.judges.base import Judge, JudgeFailed, Verdict
from envs.players.base import Ask, ContextFull, Player, PlayerFailed, Said, Session
from envs.tokens import with_feedback
from envs.types import (
    Episode,
    FailureReason,
    Feedback,
    JudgeCall,
    Limits,
    Message,
    Outcome,
    Row,
    Say,
    Score,
    Seat,
    Stop,
    Unscored,
)

T = TypeVar("T")


def episode_seed(run_seed: int, step: int, row: Row, sample: int, *, phase: str = "rollout") -> int:
    """The seed of one episode of a run, from its coordinates alone."""
    return derive_seed(run_seed, phase, step, row.prompt_id, sample)


def check_seats(env: Env[Any], players: Mapping[Seat, Player], learnable: Collection[Seat]) -> None:
    """Refuse a table that cannot be played, before anything is spent. Raises UsageError."""
    problems = []
    if missing := sorted(set(env.seats) - set(players)):
        problems.append(f"no player for seat {', '.join(missing)}")
    if unknown := sorted((set(players) | set(learnable)) - set(env.seats)):
        problems.append(f"no such seat: {', '.join(unknown)}")
    problems += [
        f"seat {seat!r} cannot learn: its player gives text, not the sampled token ids"
        for seat in sorted(learnable)
        if seat in players and not players[seat].token_exact
    ]
    if problems:
        raise UsageError(
            "; ".join(problems),
            where="players",
            fix=f"the seats are {', '.join(env.seats)}; a learnable seat needs an EnginePlayer",
        )


@dataclass
class _Table:
    """What has happened so far; kept through failures, so that an unscored episode still shows its transcript."""

    sessions: Mapping[Seat, Session]
    feedback_text: Mapping[Seat, str]
    state: Any = None
    turn: int = 0
    acting: tuple[Seat, ...] = ()
    stop: Stop = Stop.FINISHED
    says: list[Say] = field(default_factory=list)
    calls: list[JudgeCall] = field(default_factory=list)
    views: dict[Seat, tuple[Message, ...]] = field(default_factory=dict)
    opening: dict[Seat, int] = field(default_factory=dict)
    offender: tuple[Seat, str] | None = None
    feedback: dict[Seat, Feedback] = field(default_factory=dict)


async def play(
    env: Env[Any],
    row: Row,
    players: Mapping[Seat, Player],
    *,
    judge: Judge | None = None,
    learnable: Collection[Seat] = (),
    seed: int,
    limits: Limits | None = None,
    feedback_text: Mapping[Seat, str] | None = None,
    want_feedback: bool = False,
    setting_seed: int = 0,
    scorer: str = "strict",
) -> Episode:
    """Play `row` once.

    feedback_text: verbal feedback per seat, appended to that seat's first user message (the trace then also holds
    the first prompt without it). want_feedback: ask the environment (and the critic, where it needs one) for
    feedback on this episode, for each learnable seat. Raises UsageError for a table that cannot be played and lets
    other run-wide OsimErrors through; everything else becomes an Outcome.
    """
    check_seats(env, players, learnable)
    limits = limits or Limits()
    started = time.monotonic()
    sessions = {
        seat: players[seat].join(
            seat, learnable=seat in learnable, limits=limits, episode_id=f"{row.prompt_id}/{seed:x}"
        )
        for seat in env.seats
    }
    table = _Table(sessions, dict(feedback_text or {}))

    deadlines = Deadlines(limits.episode_timeout_s)

    async def run() -> dict[Seat, Outcome]:
        await _drive(env, row, table, limits, deadlines, seed, setting_seed)
        outcomes = await _score(env, table, judge, seed)
        if want_feedback:
            await _ask_feedback(env, table, judge, learnable, seed)
        return outcomes

    result = await _within(run(), deadlines, table, limits)
    if isinstance(result, Unscored):
        table.stop = Stop.FAILED
        result = dict.fromkeys(env.seats, result)
    return Episode(
        row=row,
        seed=seed,
        says=tuple(table.says),
        views=table.views,
        traces={seat: session.trace() for seat, session in sessions.items()},
        outcomes=result,
        judge_calls=tuple(table.calls),
        wall_s=time.monotonic() - started,
        scorer=scorer,
        stop=table.stop,
        turns=table.turn,
        setting_seed=setting_seed,
        opening=table.opening,
        feedback_text=table.feedback_text,
        feedback=table.feedback,
    )


async def _within(
    run: Coroutine[Any, Any, dict[Seat, Outcome]], deadlines: Deadlines, table: _Table, limits: Limits
) -> dict[Seat, Outcome] | Unscored:
    """The outcomes, or why there are none."""
    try:
        async with deadlines:
            result = await contain(_foreseen(run))
    except TimeoutError:
        if deadlines.part_expired:
            late = f"turn {table.turn} ({', '.join(table.acting)}) took longer than {limits.turn_timeout_s} s"
        else:
            late = f"the episode took longer than {limits.episode_timeout_s} s"
        return Unscored(FailureReason.TIMEOUT, late)
    return Unscored(FailureReason.BUG, result.detail) if isinstance(result, Bug) else result


async def _foreseen(run: Coroutine[Any, Any, dict[Seat, Outcome]]) -> dict[Seat, Outcome] | Unscored:
    """Typed failures as outcomes."""
    try:
        return await run
    except EngineError as e:
        return Unscored(FailureReason.ENGINE_FAILED, str(e))
    except PlayerFailed as e:
        return Unscored(e.reason, str(e))


async def _drive(
    env: Env[Any], row: Row, table: _Table, limits: Limits, deadlines: Deadlines, seed: int, setting_seed: int
) -> None:
    """Turns until the environment is done, a limit is reached, or an action cannot be parsed."""
    table.state = env.start(row, derive_rng(setting_seed, "setting", row.prompt_id))
    while not isinstance(seats := env.turn(table.state), Done):
        if table.turn >= limits.max_turns:
            table.stop = Stop.TURN_LIMIT
            break
        if not seats:
            raise ValueError("the environment says that nobody acts and that it is not done")
        table.acting = tuple(seats)
        asks = [_ask(env, table, seat, seed) for seat in seats]
        deadlines.begin_part(limits.turn_timeout_s)
        try:
            said = await _act(table, seats, asks)
        except ContextFull:
            table.stop = Stop.TOKEN_LIMIT
            break
        except PlayerFailed as e:
            table.calls += e.calls
            raise
        finally:
            deadlines.end_part()
        for seat, one in zip(seats, said, strict=True):
            text = well_formed(one.text)
            table.says.append(Say(seat, text))
            table.calls += one.calls
            heard = env.hear(table.state, seat, text)
            if isinstance(heard, FormatError):
                table.offender, table.stop = (seat, heard.detail), Stop.FORMAT_ERROR
                break
            table.state = heard
        table.turn += 1
        if table.offender:
            break
    for seat in env.seats:
        extend_view(env, table.state, seat, table.views)


def _ask(env: Env[Any], table: _Table, seat: Seat, seed: int) -> Ask:
    before = len(table.views.get(seat, ()))
    view = extend_view(env, table.state, seat, table.views)
    hint = table.feedback_text.get(seat)
    hinted = with_feedback(view, hint) if hint is not None else view
    turn_seed = derive_seed(seed, seat, table.turn)
    if seat not in table.opening:
        table.opening[seat] = len(view)
        return Ask(hinted, hinted, table.turn, turn_seed, plain=view if hint is not None else None)
    if len(view) == before or view[before].role != "assistant":
        raise ValueError(f"the view of seat {seat!r} does not go on with what the seat said")
    # From `before` on, feedback changes nothing: it belongs to the first prompt.
    return Ask(hinted, view[before + 1 :], table.turn, turn_seed)


def extend_view(env: Env[Any], state: Any, seat: Seat, views: dict[Seat, tuple[Message, ...]]) -> tuple[Message, ...]:
    """The seat's view now; raises ValueError unless it extends what the seat saw before."""
    before, view = views.get(seat, ()), tuple(env.view(state, seat))
    if view[: len(before)] != before:
        raise ValueError(f"the view of seat {seat!r} was rewritten, not extended")
    views[seat] = view
    return view


async def _act(table: _Table, seats: Sequence[Seat], asks: Sequence[Ask]) -> list[Said]:
    """All seats of this round, at once."""
    if len(seats) == 1:
        return [await table.sessions[seats[0]].act(asks[0])]
    return await _together([table.sessions[seat].act(ask) for seat, ask in zip(seats, asks, strict=True)], table)


async def _together(calls: Sequence[Coroutine[Any, Any, T]], table: _Table) -> list[T]:
    """`gather` that leaves nothing running when one of them fails, and records what the others had asked by then."""
    tasks = [asyncio.ensure_future(call) for call in calls]
    try:
        return list(await asyncio.gather(*tasks))
    except BaseException as failure:
        for task in tasks:
            task.cancel()
        for ended in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(ended, Said | PlayerFailed | Verdict | JudgeFailed) and ended is not failure:
                table.calls += ended.calls
        raise


async def _score(env: Env[Any], table: _Table, judge: Judge | None, seed: int) -> dict[Seat, Outcome]:
    if table.offender:
        who, detail = table.offender
        fault = Unscored(FailureReason.PARTNER_FAILED, f"seat {who!r} broke the format: {detail}")
        own = Score(0.0, format_error=True, explanation=detail)
        return {seat: own if seat == who else fault for seat in env.seats}
    asked = dict(env.score(table.state))
    if strangers := sorted(set(asked) - set(env.seats)):
        raise ValueError(f"the environment scores {strangers}, which are not among its seats {env.seats}")
    asks = [outcome for outcome in asked.values() if isinstance(outcome, JudgeAsk | JudgePanel)]
    replies = await _judge(table, judge, asks, seed)
    outcomes: dict[Seat, Outcome] = {}
    for seat, outcome in asked.items():
        found = _judged(outcome, replies) if isinstance(outcome, JudgeAsk | JudgePanel) else outcome
        if not isinstance(found, Score | Unscored):
            raise ValueError(f"the outcome of seat {seat!r} is neither Score nor Unscored: {found!r}")
        outcomes[seat] = found
    return outcomes


async def _judge(
    table: _Table, judge: Judge | None, asks: Sequence[JudgeAsk | JudgePanel], seed: int
) -> dict[str, Verdict | JudgeFailed]:
    """Every reply by its question; questions that seats share are asked once, all at the same time."""
    questions = {_question_key(*question): question for ask in asks for question in ask.questions}
    if judge is None:
        return dict.fromkeys(questions, JudgeFailed("no judge is configured"))
    replies = await _together(
        [judge.ask(spec, fields, seed=derive_seed(seed, "judge", spec)) for spec, fields in questions.values()],
        table,
    )
    for reply in replies:
        table.calls += reply.calls
    return dict(zip(questions, replies, strict=True))


def _question_key(spec: str, fields: Mapping[str, Any]) -> str:
    return hash_json([spec, {name: str(value) for name, value in fields.items()}])


def _judged(ask: JudgeAsk | JudgePanel, replies: Mapping[str, Verdict | JudgeFailed]) -> Outcome:
    values = []
    for spec, fields in ask.questions:
        reply = replies[_question_key(spec, fields)]
        if isinstance(reply, JudgeFailed):
            return Unscored(FailureReason.JUDGE_FAILED, f"{spec}: {reply.detail}")
        values.append(reply.value)
    return ask.outcome(values)


async def _ask_feedback(
    env: Env[Any], table: _Table, judge: Judge | None, seats: Collection[Seat], seed: int
) -> None:
    """Feedback where the environment has some; a critic that fails leaves none."""
    if table.offender:
        return
    for seat in sorted(seats):
        feedback = env.feedback(table.state, seat)
        if feedback is None or isinstance(feedback, Feedback):
            if feedback is not None:
                table.feedback[seat] = feedback
            continue
        if judge is None:
            continue
        reply = await judge.ask(feedback.spec, feedback.fields, seed=derive_seed(seed, "critic", feedback.spec))
        table.calls += reply.calls
        if not isinstance(reply, JudgeFailed):
            table.feedback[seat] = Feedback(feedback.text(reply.value), feedback.sees_gold)
