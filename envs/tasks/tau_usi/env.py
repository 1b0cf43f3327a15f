"""A customer and a service agent with tools; the tools run here, on an immutable database. Pure.

The agent greets, the customer writes first. An agent's reply with tool calls is answered with their results, which
only the agent sees; any other goes to the customer. At the end the customer answers a survey. Profiles:
* strict (reward): mean of faithful and natural (0 to 10, a judge), 0 if the customer is at fault; an empty message
  is a format error; ending before the agent has answered, or mostly reciting the instruction, is 0;
* author: tau-bench's own reward: the changes are those of a right agent, and all that was to be told was told.
An agent that never gets back to the customer makes the episode Unscored(partner_failed).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

from common.errors import DataError
from envs.env import Done, Feedback, FormatError, JudgeAsk
from envs.registry import Profile
from envs.tasks.quoting import copied_share
from envs.tasks.schema import data_of
from envs.tasks.talk import Line, transcript
from envs.tasks.tau_usi import airline, features, retail, survey
from envs.tasks.tau_usi.database import Database
from envs.tasks.tau_usi.prompts import (
    GREETING,
    JUDGE,
    STOP,
    Customer,
    agent_grounding,
    calls_in,
    customer_grounding,
)
from envs.tasks.tau_usi.rows import Case, same
from envs.tasks.tau_usi.tools import Toolbox, call
from envs.types import FailureReason, Message, Outcome, Row, Score, Seat, Unscored

CUSTOMER: Seat = "customer"
AGENT: Seat = "agent"
SEATS = (CUSTOMER, AGENT)
MAX_MESSAGES = 30
MAX_TOOL_ROUNDS = 16
"""Replies in a row in which an agent only uses tools."""
MAX_COPIED = 0.5
DOMAINS: Mapping[str, tuple[str, Toolbox]] = {
    "retail": (retail.POLICY, retail.TOOLS),
    "airline": (airline.POLICY, airline.TOOLS),
}


@dataclass(frozen=True)
class Service:
    """The talk so far. A line of the agent with tool calls shows nothing; `results[i]` answers line i."""

    case: Case
    database: Database
    lines: tuple[Line, ...] = ()
    results: Mapping[int, str] = field(default_factory=dict)
    rounds: int = 0
    ended: bool = False
    answers: str | None = None

    def texts(self, seat: Seat) -> list[str]:
        return [line.shown for line in self.lines if line.seat == seat and line.shown]

    @property
    def stuck(self) -> bool:
        return self.rounds >= MAX_TOOL_ROUNDS

    @property
    def talking(self) -> bool:
        written = sum(line.seat == CUSTOMER for line in self.lines)
        answered = bool(self.lines) and self.lines[-1].seat == AGENT and not self.rounds
        return not self.ended and not self.stuck and (written < MAX_MESSAGES or not answered)

    def talk(self) -> str:
        """For a judge."""
        shown = [(line.seat.upper(), line.shown) for line in self.lines if line.shown]
        return transcript([(AGENT.upper(), GREETING), *shown])


@dataclass(frozen=True)
class TauEnv:
    """Rules of the talk. `worlds`: shared databases by domain, for rows that hold none."""

    profile: Profile = "strict"
    worlds: Mapping[str, Mapping[str, Mapping[str, Any]]] = field(default_factory=dict)
    seats: tuple[Seat, ...] = SEATS

    def start(self, row: Row, rng: Random) -> Service:
        case = data_of(Case, row)
        tables = self.worlds.get(case.domain) if case.tables is None else case.tables
        if tables is None:
            raise DataError(
                "the row holds no records of its shop or airline",
                where=row.prompt_id,
                fix="read it with tau-bench's folder as the task's data",
            )
        return Service(case, Database(tables))

    def turn(self, state: Service) -> Sequence[Seat] | Done:
        if state.talking:
            return (AGENT,) if state.lines and (state.lines[-1].seat == CUSTOMER or state.rounds) else (CUSTOMER,)
        if state.stuck:
            return Done("the agent does not get back to the customer")
        return Done("ended" if state.ended else "message limit") if state.answers is not None else (CUSTOMER,)

    def view(self, state: Service, seat: Seat) -> Sequence[Message]:
        if seat == CUSTOMER:
            view = [Message("system", customer_grounding(state.case.instruction)), Message("user", GREETING)]
        else:
            policy, tools = DOMAINS[state.case.domain]
            view = [Message("system", agent_grounding(policy, tools)), Message("assistant", GREETING)]
        for number, line in enumerate(state.lines):
            if line.seat == seat:
                view.append(Message("assistant", line.raw))
            elif line.shown:
                view.append(Message("user", line.shown))
            if seat == AGENT and number in state.results:
                view.append(Message("user", state.results[number]))
        if seat == CUSTOMER and not state.talking and not state.stuck:
            view.append(Message("user", survey.prompt()))
            view += [] if state.answers is None else [Message("assistant", state.answers)]
        return view

    def hear(self, state: Service, seat: Seat, text: str) -> Service | FormatError:
        if seat == AGENT:
            return _served(state, text)
        if not state.talking:
            return replace(state, answers=text)
        if STOP in text:
            return replace(state, lines=(*state.lines, Line(seat, text, "")), ended=True)
        if not text.strip():
            return FormatError("an empty message")
        return replace(state, lines=(*state.lines, Line(seat, text, text.strip())))

    def score(self, state: Service) -> Mapping[Seat, Outcome | JudgeAsk]:
        if state.stuck:
            detail = f"{MAX_TOOL_ROUNDS} replies in a row with tool calls only"
            return {CUSTOMER: Unscored(FailureReason.PARTNER_FAILED, detail)}
        parts = measured(state)
        if self.profile == "author":
            return {CUSTOMER: Score(parts["success"], parts)}
        if fault := fault_of(state):
            return {CUSTOMER: Score(0.0, parts, explanation=fault)}
        fields = {"instruction": state.case.instruction, "transcript": state.talk()}
        return {CUSTOMER: JudgeAsk(JUDGE.id, fields, lambda verdict: _judged(verdict, parts))}

    def feedback(self, state: Service, seat: Seat) -> Feedback | None:
        """By rule, from what the customer itself wrote."""
        if seat != CUSTOMER or state.stuck:
            return None
        if fault := fault_of(state):
            return Feedback(f"Last time {fault}.", sees_gold=False)
        if not survey.read(state.answers or ""):
            return Feedback("Last time your answers at the end were no JSON object of numbers.", sees_gold=False)
        return None

    def privileged(self, row: Row, seat: Seat) -> str | None:
        """What a right agent does."""
        actions = [f"{one.name} {one.arguments}" for one in data_of(Case, row).actions]
        return f"The agent should: {'; '.join(actions)}." if actions else None


def fault_of(state: Service) -> str | None:
    """What earns nothing, by rule."""
    if not state.texts(CUSTOMER) or not state.texts(AGENT):
        return "you ended before the agent could do anything"
    if copied_share("\n".join(state.texts(CUSTOMER)), state.case.instruction) > MAX_COPIED:
        return "your messages mostly recited who you are and what you want"
    return None


def succeeded(state: Service) -> bool:
    """tau-bench's reward: the same changes as a right agent's, and every output told to the customer."""
    wanted = Database(state.database.base)
    for one in state.case.actions:
        _, wanted = call(DOMAINS[state.case.domain][1], wanted, one.name, one.arguments)
    told = [text.lower().replace(",", "") for text in state.texts(AGENT)]
    ours, theirs = state.database.differences(), wanted.differences()
    changed = ours.keys() == theirs.keys() and all(same(ours[key], theirs[key]) for key in ours)
    return changed and all(any(output.lower() in text for text in told) for output in state.case.outputs)


def measured(state: Service) -> dict[str, float]:
    """Success, the survey's answers and the features of the customer's turns."""
    answers = survey.read(state.answers or "")
    return {
        "success": float(succeeded(state)),
        "survey answered": len(answers) / len(survey.QUESTIONS),
        **{f"survey {name}": float(answer) for name, answer in answers.items()},
        **features.measure(state.texts(CUSTOMER)),
    }


def _judged(verdict: Customer, parts: Mapping[str, float]) -> Score:
    value = 0.0 if verdict.at_fault else (verdict.faithful + verdict.natural) / 20
    scored = {
        "at fault": float(verdict.at_fault),
        "faithful": float(verdict.faithful),
        "natural": float(verdict.natural),
    }
    return Score(value, {**parts, **scored}, explanation=verdict.reasoning)


def _served(state: Service, text: str) -> Service:
    """The agent's tool calls, run in order; or its message to the customer."""
    found = calls_in(text)
    if not found:
        return replace(state, lines=(*state.lines, Line(AGENT, text, text.strip() or "(no answer)")), rounds=0)
    tools, database, results = DOMAINS[state.case.domain][1], state.database, []
    for one in found:
        if isinstance(one, str):
            results.append(one)
        else:
            told, database = call(tools, database, *one)
            results.append(f"{one[0]}: {told}")
    return replace(
        state,
        database=database,
        lines=(*state.lines, Line(AGENT, text, "")),
        results={**state.results, len(state.lines): "\n".join(results)},
        rounds=state.rounds + 1,
    )
