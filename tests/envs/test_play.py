"""Driving episodes: token-exact contexts, limits, failures as outcomes, determinism."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import Any

import pytest

from common.errors import GateError, UsageError
from envs.engine import EngineError, Generation, Sampling, VersionSpan
from envs.env import JudgeAsk, JudgePanel
from envs.judges.base import JudgeFailed, Verdict
from envs.ledger.codec import decode_row, encode_row, encode_story
from envs.play import episode_seed, play
from envs.players.base import Ask, PlayerFailed, Said
from envs.players.engine import EnginePlayer, without_reasoning
from envs.players.scripted import ScriptedPlayer
from envs.tokens import Prompts, prompt_with, retarget
from envs.types import Episode, FailureReason, JudgeCall, Limits, Message, Score, SeatTrace, Stop, Unscored
from tests.envs.table import Dialogue, SeededEngine, Talk, byte_renderer, row

RENDERER = byte_renderer()


def engine_player(engine: Any = None, max_tokens: int = 12) -> EnginePlayer:
    return EnginePlayer(engine or SeededEngine(RENDERER), RENDERER, Sampling(max_tokens=max_tokens))


def run(env: Any, players: Any, **options: Any) -> Episode:
    return asyncio.run(play(env, row(), players, **{"seed": 7, **options}))


def both(player: Any) -> dict[str, Any]:
    return {"a": player, "b": player}


@pytest.mark.parametrize("simultaneous", [False, True])
def test_segments_concatenate_to_exactly_what_the_engine_saw(simultaneous: bool) -> None:
    engines = {"a": SeededEngine(RENDERER), "b": SeededEngine(RENDERER)}
    players = {seat: engine_player(engine) for seat, engine in engines.items()}
    episode = run(Dialogue(rounds=4, simultaneous=simultaneous), players, learnable=["a", "b"])
    for seat, engine in engines.items():
        trace = episode.traces[seat]
        assert len(engine.calls) == 4
        for prompt, generation in engine.calls:
            seen = prompt + generation.ids
            assert trace.ids[: len(seen)] == seen
        last_prompt, last = engine.calls[-1]
        assert trace.ids == last_prompt + last.ids
        sampled = [i for i, own in zip(trace.ids, trace.trainable_mask, strict=True) if own]
        assert sampled == [i for _, g in engine.calls for i in g.ids]
        assert [p for p, own in zip(trace.logprobs, trace.trainable_mask, strict=True) if own] == [
            p for _, g in engine.calls for p in g.logprobs
        ]
        assert {v for v, own in zip(trace.versions, trace.trainable_mask, strict=True) if own} <= {1, 2}


def test_a_later_prompt_is_the_rendering_of_the_view_when_the_turn_decodes_to_itself() -> None:
    class Hello(SeededEngine):
        async def generate(self, prompt_ids: tuple[int, ...], *args: Any, **options: Any) -> Generation:
            ids = (*RENDERER.encode_content("hello"), RENDERER.end_id)
            self.calls.append((prompt_ids, Generation(ids, (-0.5,) * 6, "stop", (VersionSpan(1, 0, 6),))))
            return self.calls[-1][1]

    engine = Hello(RENDERER)
    episode = run(Dialogue(), {"a": engine_player(engine), "b": ScriptedPlayer(["x", "y", "z"])}, learnable=["a"])
    view = episode.views["a"]
    assert [prompt for prompt, _ in engine.calls] == [tuple(RENDERER.prompt_ids(view[:n])) for n in (2, 4, 6)]


def test_a_turn_cut_at_the_token_limit_is_closed_by_given_ids_not_trained_ones() -> None:
    engine = SeededEngine(RENDERER, stop_probability=0.0)
    episode = run(
        Dialogue(rounds=2), {"a": engine_player(engine, 5), "b": ScriptedPlayer(["x", "y"])}, learnable=["a"]
    )
    given = [s for s in episode.traces["a"].segments if not s.trainable]
    assert given[1].ids[: 1 + len(RENDERER.closing_ids)] == (RENDERER.end_id, *RENDERER.closing_ids)
    assert all(len(g.ids) == 5 for _, g in engine.calls)


def test_samples_of_a_group_tokenize_their_first_prompt_once_and_the_cache_stays_small() -> None:
    prompts = Prompts(RENDERER, most=2)
    views = [(Message("user", str(i)),) for i in range(3)]
    assert prompts.ids(views[0]) is prompts.ids(views[0])
    assert prompts.ids(views[0]) == tuple(RENDERER.prompt_ids(views[0]))
    kept = [prompts.ids(view) for view in views]
    assert prompts.ids(views[2]) is kept[2] and prompts.ids(views[0]) is not kept[0]


def test_play_is_deterministic_in_its_seed() -> None:
    one = run(Dialogue(), both(engine_player()), learnable=["a"])
    two = run(Dialogue(), both(engine_player()), learnable=["a"])
    other = run(Dialogue(), both(engine_player()), learnable=["a"], seed=8)
    assert replace(one, wall_s=0.0) == replace(two, wall_s=0.0)
    assert one.says != other.says


def test_samples_of_a_group_face_the_same_situation() -> None:
    first_views = {run(Dialogue(), both(engine_player()), seed=seed).first_view("a") for seed in range(5)}
    assert len(first_views) == 1
    assert run(Dialogue(), both(engine_player()), setting_seed=1).first_view("a") not in first_views


def test_seeds_depend_on_every_coordinate() -> None:
    coordinates = [(s, t, row(i), n) for s in (0, 1) for t in (0, 1) for i in ("1", "2") for n in (0, 1)]
    assert len({episode_seed(s, t, r, n) for s, t, r, n in coordinates}) == len(coordinates)
    assert episode_seed(0, 0, row(), 0) != episode_seed(0, 0, row(), 0, phase="refined")
    engine = SeededEngine(RENDERER)
    run(Dialogue(), both(engine_player(engine)))
    assert len(set(engine.seeds)) == len(engine.seeds)


def test_feedback_enters_the_first_user_message_and_can_be_taken_out_of_the_context() -> None:
    engine = SeededEngine(RENDERER)
    players = {"a": engine_player(engine), "b": ScriptedPlayer(["x", "y", "z"])}
    episode = run(Dialogue(), players, learnable=["a"], feedback_text={"a": "Use more vowels."})
    trace, first_view = episode.traces["a"], episode.first_view("a")
    assert trace.segments[0].ids == prompt_with(RENDERER, first_view, "Use more vowels.") == engine.calls[0][0]
    assert "vowels" in RENDERER.decode(trace.ids) and "vowels" not in str(episode.views)
    assert trace.plain_prompt == prompt_with(RENDERER, first_view)
    plain = retarget(trace, trace.plain_prompt)
    assert plain.segments[0].ids == trace.plain_prompt and plain.segments[1:] == trace.segments[1:]
    assert plain.sampled == trace.sampled and plain.plain_prompt is None
    assert "vowels" not in RENDERER.decode(plain.ids)


def test_feedback_is_given_when_asked_for_and_only_to_learnable_seats() -> None:
    episode = run(Dialogue(), both(engine_player()), learnable=["a"], want_feedback=True)
    assert {seat: f.text for seat, f in episode.feedback.items()} == {"a": "Use more vowels."}
    assert not run(Dialogue(), both(engine_player()), learnable=["a"]).feedback


def test_a_seat_whose_player_gives_only_text_cannot_learn() -> None:
    with pytest.raises(UsageError, match="cannot learn"):
        run(Dialogue(), both(ScriptedPlayer(["x"] * 3)), learnable=["a"])
    with pytest.raises(UsageError, match="no player for seat b"):
        run(Dialogue(), {"a": engine_player()})


def test_an_unparsable_action_scores_zero_for_its_seat_and_unscores_its_partner() -> None:
    episode = run(Dialogue(forbidden="!"), {"a": ScriptedPlayer(["fine", "bad!"]), "b": ScriptedPlayer(["ok"])})
    mine, theirs = episode.outcomes["a"], episode.outcomes["b"]
    assert isinstance(mine, Score) and mine.format_error and mine.value == 0.0
    assert isinstance(theirs, Unscored) and theirs.reason == FailureReason.PARTNER_FAILED
    assert episode.stop == Stop.FORMAT_ERROR and episode.says[-1].text == "bad!"


@dataclass
class FlakyEngine:
    """Fails `failures` times, then answers."""

    inner: SeededEngine
    failures: int
    name: str = "flaky"
    reproducible: bool = True

    async def generate(
        self, prompt_ids: tuple[int, ...], sampling: Sampling, *, seed: int, request_id: str
    ) -> Generation:
        self.inner.seeds.append(seed)
        if self.failures > 0:
            self.failures -= 1
            raise EngineError("connection refused")
        return await self.inner.generate(prompt_ids, sampling, seed=seed, request_id=request_id)

    async def score(self, ids: tuple[int, ...], start: int) -> tuple[float, ...]:
        return await self.inner.score(ids, start)


def test_engine_failures_are_repeated_with_the_same_seed_and_change_nothing() -> None:
    partner = ScriptedPlayer(["x", "y", "z"])
    calm = run(Dialogue(), {"a": engine_player(), "b": partner}, learnable=["a"])
    flaky = FlakyEngine(SeededEngine(RENDERER), failures=2)
    shaken = run(Dialogue(), {"a": engine_player(flaky), "b": partner}, learnable=["a"])
    assert replace(calm, wall_s=0.0) == replace(shaken, wall_s=0.0)
    assert len(set(flaky.inner.seeds[:3])) == 1


def test_an_engine_that_stays_down_unscores_the_episode() -> None:
    flaky = FlakyEngine(SeededEngine(RENDERER), failures=10**9)
    episode = run(Dialogue(), {"a": engine_player(flaky), "b": ScriptedPlayer([])}, learnable=["a"])
    assert {type(o) for o in episode.outcomes.values()} == {Unscored}
    assert episode.outcomes["a"].reason == FailureReason.ENGINE_FAILED  # type: ignore[union-attr]
    assert episode.stop == Stop.FAILED


def test_malformed_generations_are_engine_failures() -> None:
    class Broken(SeededEngine):
        async def generate(self, *args: Any, **options: Any) -> Generation:
            return replace(await super().generate(*args, **options), logprobs=(float("nan"),))

    episode = run(Dialogue(), both(engine_player(Broken(RENDERER))), learnable=["a"])
    assert episode.outcomes["a"].reason == FailureReason.ENGINE_FAILED  # type: ignore[union-attr]


def test_turn_limit_and_full_context_end_the_episode_and_score_it() -> None:
    limited = run(Dialogue(rounds=50), both(engine_player()), limits=Limits(max_turns=5))
    assert limited.stop == Stop.TURN_LIMIT and limited.turns == 5 and isinstance(limited.outcomes["a"], Score)
    full = run(Dialogue(rounds=50), both(engine_player()), limits=Limits(max_context_tokens=300))
    assert full.stop == Stop.TOKEN_LIMIT and isinstance(full.outcomes["a"], Score)
    assert max(len(t.ids) for t in full.traces.values()) <= 300


@pytest.mark.parametrize("limits", [Limits(turn_timeout_s=0.05), Limits(episode_timeout_s=0.05)])
def test_a_slow_engine_is_a_timeout_and_leaves_nothing_running(limits: Limits) -> None:
    async def main() -> tuple[Episode, int]:
        episode = await play(
            Dialogue(simultaneous=True),
            row(),
            both(engine_player(SeededEngine(RENDERER, latency_s=30))),
            seed=1,
            limits=limits,
        )
        return episode, len(asyncio.all_tasks())

    episode, tasks = asyncio.run(main())
    assert episode.outcomes["a"].reason == FailureReason.TIMEOUT  # type: ignore[union-attr]
    assert tasks == 1


def test_a_bug_in_a_task_is_contained_with_its_place_but_run_wide_errors_pass() -> None:
    class Buggy(Dialogue):
        def score(self, state: Talk) -> Any:
            return {"a": Score(1.5)}

    class Spent(Dialogue):
        def score(self, state: Talk) -> Any:
            raise GateError("budget is spent")

    episode = run(Buggy(), both(engine_player()))
    outcome = episode.outcomes["a"]
    assert isinstance(outcome, Unscored) and outcome.reason == FailureReason.BUG
    assert "[0, 1]" in outcome.detail and "test_play.py" in outcome.detail
    with pytest.raises(GateError):
        run(Spent(), both(engine_player()))


def test_a_view_that_is_rewritten_is_a_bug() -> None:
    class Forgetful(Dialogue):
        def view(self, state: Talk, seat: str) -> Any:
            return [Message("user", f"Turn {len(state.said)}")]

    outcome = run(Forgetful(), both(engine_player())).outcomes["a"]
    assert isinstance(outcome, Unscored) and "rewritten" in outcome.detail


@dataclass(frozen=True)
class Value:
    score: float


@dataclass
class EverySecondFails:
    """A judge by rule."""

    asked: int = 0

    async def ask(self, spec: str, fields: Any, *, seed: int) -> Verdict | JudgeFailed:
        self.asked += 1
        return JudgeFailed("500 three times") if self.asked % 2 == 0 else Verdict(Value(0.25))


def test_a_failed_judge_unscores_its_seat_only() -> None:
    episode = run(Dialogue(judged=True), both(engine_player()), judge=EverySecondFails())
    assert episode.outcomes["a"] == Score(0.25)
    failed = episode.outcomes["b"]
    assert isinstance(failed, Unscored) and failed.reason == FailureReason.JUDGE_FAILED
    no_judge = run(Dialogue(judged=True), both(engine_player())).outcomes["a"]
    assert isinstance(no_judge, Unscored) and no_judge.reason == FailureReason.JUDGE_FAILED


def test_private_reasoning_is_not_heard_by_others() -> None:
    assert without_reasoning("<think>plan</think>Hello") == "Hello"
    assert without_reasoning(" <think>never ends") == ""
    assert without_reasoning("I <think> so") == "I <think> so"


def test_scripted_players_may_answer_by_rule() -> None:
    def echo(ask: Ask) -> str:
        return f"{len(ask.new)} new"

    episode = run(Dialogue(), both(ScriptedPlayer(echo)))
    assert [s.text for s in episode.says if s.seat == "a"] == ["2 new", "1 new", "1 new"]


def test_half_characters_from_a_player_are_replaced_before_anybody_hears_them() -> None:
    line = ScriptedPlayer(["caf\udce9", "\ud83d\ude00 ok"] * 4)
    episode = run(Dialogue(rounds=2), both(line))
    assert {say.text for say in episode.says} == {"caf\ufffd", "\U0001f600 ok"}
    assert decode_row(encode_row(episode.row)) == episode.row and encode_story(episode)
    assert not any("\udce9" in m.content for view in episode.views.values() for m in view)


def test_an_outcome_of_no_known_type_is_a_bug_and_never_recorded() -> None:
    class Careless(Dialogue):
        def score(self, state: Talk) -> Any:
            return {"a": 0.5, "b": None}

    episode = run(Careless(), both(engine_player()))
    assert {o.reason for o in episode.outcomes.values() if isinstance(o, Unscored)} == {FailureReason.BUG}
    assert set(episode.outcomes) == {"a", "b"}


def test_a_panel_needs_every_verdict_and_a_shared_question_is_asked_once() -> None:
    asked: list[str] = []

    class Judge:
        def __init__(self, failing: str = "") -> None:
            self.failing = failing

        async def ask(self, spec: str, fields: Any, *, seed: int) -> Verdict | JudgeFailed:
            asked.append(spec)
            return JudgeFailed("down") if spec == self.failing else Verdict(0.25 if spec == "one" else 0.5)

    class Panel(Dialogue):
        def score(self, state: Any) -> Any:
            panel = JudgePanel((("one", {"x": 1}), ("two", {"x": 1})), lambda v: Score(sum(v)))
            return {"a": panel, "b": JudgeAsk("two", {"x": 1}, lambda v: Score(v))}

    players = {"a": ScriptedPlayer(["x"] * 3), "b": ScriptedPlayer(["y"] * 3)}
    episode = asyncio.run(play(Panel(), row(), players, judge=Judge(), seed=1))
    assert {s: o.value for s, o in episode.outcomes.items() if isinstance(o, Score)} == {"a": 0.75, "b": 0.5}
    assert sorted(asked) == ["one", "two"]
    failed = asyncio.run(play(Panel(), row(), players, judge=Judge("one"), seed=1))
    assert failed.outcomes == {"a": Unscored(FailureReason.JUDGE_FAILED, "one: down"), "b": Score(0.5)}


@dataclass(frozen=True)
class Paid:
    """A seat whose turn is one paid call, which fails where told to."""

    fails_after_s: float | None = None
    token_exact: bool = False

    def join(self, seat: str, *, learnable: bool, limits: Limits, episode_id: str) -> Paid:
        return self

    async def act(self, ask: Ask) -> Said:
        call = JudgeCall("partner", "m", {"messages": []}, "hello", None, 0.5, 0.0)
        if self.fails_after_s is None:
            return Said("hello", (call,))
        await asyncio.sleep(self.fails_after_s)
        raise PlayerFailed("gone", calls=(replace(call, reply=None, error="gone"),))

    def trace(self) -> SeatTrace:
        return SeatTrace("a", learnable=False)


@pytest.mark.parametrize("failing", [{"a"}, {"b"}, {"a", "b"}])
def test_a_seat_that_fails_takes_no_paid_call_of_the_others_with_it(failing: set[str]) -> None:
    players = {seat: Paid(0.01 if seat in failing else None) for seat in ("a", "b")}
    episode = run(Dialogue(simultaneous=True), players)
    assert isinstance(outcome := episode.outcomes["a"], Unscored) and outcome.reason == FailureReason.PARTNER_FAILED
    assert len(episode.judge_calls) == 2
    assert sum(call.error is not None for call in episode.judge_calls) == len(failing)
