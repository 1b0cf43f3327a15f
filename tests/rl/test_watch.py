"""What a run notices about its judge, its policy and its budget, and what it does then."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from common.errors import DataError, GateError, UsageError
from common.run_folder import RunFolder
from envs.client.config import ClientConfig, Endpoint
from envs.judges.base import JudgeFailed
from envs.judges.base import Verdict as Answer
from envs.ledger import EpisodeKey, Ledger
from envs.play import play
from envs.players.scripted import ScriptedPlayer
from envs.types import Episode, FailureReason, Finding, JudgeCall, Row, Unscored
from rl.config import RLConfig
from rl.generation import Generation
from rl.watch.alarm import Alarm, detector_alarms, raise_stops
from rl.watch.config import AnchorConfig, HumanReferenceConfig, SecondJudgeConfig, WatchConfig
from rl.watch.likeness import read_turns
from rl.watch.watch import Watch
from tests.rl import judged, runs

CALL = JudgeCall("judge", "m", {}, "{}", None, 0.01, 0.1)


class FixedJudge:
    """Gives every text the same score; None: fails."""

    def __init__(self, score: float | None) -> None:
        self.score = score

    async def ask(self, spec: str, fields: Mapping[str, Any], *, seed: int) -> Answer | JudgeFailed:
        if self.score is None:
            return JudgeFailed("away", (CALL,))
        return Answer(judged.Verdict(score=self.score), (replace(CALL, reply=str(self.score)),))


def episodes(count: int, score: float = 0.5) -> list[Episode]:
    async def one(i: int) -> Episode:
        row = Row("letters", str(i), str(i), {"word": "cat"})
        players = {"writer": ScriptedPlayer((f"aei {i}", f"oo {i}"))}
        return await play(judged.JudgedEnv(), row, players, judge=FixedJudge(score), seed=i)

    async def every() -> list[Episode]:
        return [await one(i) for i in range(count)]

    return asyncio.run(every())


@pytest.fixture
def anchors(tmp_path: Path) -> Path:
    """A run folder with ten episodes that were scored 0.5."""
    with_ledger = Ledger(tmp_path / "anchors" / "ledger")
    for i, episode in enumerate(episodes(10)):
        with_ledger.put_episode(EpisodeKey("eval", 0, episode.row.prompt_id, i), episode)
    with_ledger.close()
    return tmp_path / "anchors"


def watch(config: WatchConfig, tmp_path: Path, judge: float | None = 0.5, second: float | None = 0.5) -> Watch:
    ledger = Ledger(tmp_path / "ledger")
    specs = {"letters": judged.spec()}
    return Watch(config, specs, ledger, judge=FixedJudge(judge), second=FixedJudge(second), seed=1)


def observe(one: Watch, step: int, played: list[Episode]) -> dict[str, float | int]:
    return asyncio.run(one.observe(step, [(e, ("writer",)) for e in played]))


def test_a_judge_that_drifts_on_the_anchors_is_measured_every_k_steps(anchors: Path, tmp_path: Path) -> None:
    config = WatchConfig(anchors=AnchorConfig(run=anchors, count=6, every_steps=2, max_shift=0.1))
    one = watch(config, tmp_path, judge=0.75)
    found = observe(one, 2, [])
    assert found["judge/anchor_n"] == 6 and found["judge/anchor_shift"] == pytest.approx(0.25)
    assert found["watch/alarms"] == 1, "logged, not stopped"
    assert observe(one, 3, []) == {}


@pytest.mark.parametrize("judge", [0.75, 0.25, None])
def test_a_drifted_or_silent_judge_stops_the_run_where_that_is_configured(judge, anchors: Path, tmp_path) -> None:
    config = WatchConfig(anchors=AnchorConfig(run=anchors, action="stop"))
    with pytest.raises(GateError, match="anchors"):
        observe(watch(config, tmp_path, judge=judge), 0, [])


def test_a_steady_judge_raises_nothing(anchors: Path, tmp_path: Path) -> None:
    found = observe(watch(WatchConfig(anchors=AnchorConfig(run=anchors, action="stop")), tmp_path), 0, [])
    assert found["judge/anchor_shift"] == 0.0 and "watch/alarms" not in found


def test_anchor_calls_are_part_of_the_runs_cost(anchors: Path, tmp_path: Path) -> None:
    one = watch(WatchConfig(anchors=AnchorConfig(run=anchors, count=3)), tmp_path, judge=0.6)
    observe(one, 0, [])
    ledger = one._anchors._rejudge._ledger
    (cost,) = ledger.costs()
    assert cost.calls == 3 and cost.cost_usd == pytest.approx(0.03)


def test_a_second_judge_scores_a_share_of_the_step(tmp_path: Path) -> None:
    config = WatchConfig(second_judge=SecondJudgeConfig(client={}, share=0.25, max_gap=0.2))
    found = observe(watch(config, tmp_path, second=0.1), 0, episodes(12))
    assert found["judge/second_n"] == 3 and found["judge/second_gap"] == pytest.approx(0.4)
    assert found["watch/alarms"] == 1


def test_a_second_judge_that_fails_never_agrees(tmp_path: Path) -> None:
    config = WatchConfig(second_judge=SecondJudgeConfig(client={}, share=1.0, action="stop"))
    with pytest.raises(GateError, match="no verdict"):
        observe(watch(config, tmp_path, second=None), 0, episodes(4))


def test_an_episode_that_a_failure_cut_short_is_no_second_opinion(tmp_path: Path) -> None:
    failed = Unscored(FailureReason.ENGINE_FAILED, "gone")
    cut = [replace(e, outcomes=e.outcomes | {"other": failed}) for e in episodes(4)]
    config = WatchConfig(second_judge=SecondJudgeConfig(client={}, share=1.0))
    assert observe(watch(config, tmp_path, second=None), 0, cut) == {}


def test_each_clients_budget_goes_on_where_its_own_models_left_it(tmp_path: Path) -> None:
    generation = Generation.__new__(Generation)
    generation.ledger, generation._clients = Ledger(tmp_path / "ledger"), []
    for model, usd in (("first", 1.0), ("first", 0.5), ("second", 0.25)):
        generation.ledger.put_call(replace(CALL, model=model, cost_usd=usd))
    generation.ledger.flush()
    for model, spent in (("first", 1.5), ("second", 0.25), ("third", 0.0)):
        client = generation._opened_client(ClientConfig(judge=Endpoint(model=model), max_usd=2.0))
        assert client.budget.spent_usd == pytest.approx(spent)
    generation.ledger.close()


def test_judges_and_teachers_that_never_answer_end_the_step_at_its_deadline() -> None:
    from rl.generation import Generation

    class Hung:
        async def observe(self, *_: object) -> None:
            await asyncio.sleep(60)

    generation = Generation.__new__(Generation)
    generation.config = runs.config(Path("m"), {"name": "grpo"}, timeout_s=0.01)
    generation._watch = Hung()
    with pytest.raises(GateError, match=r"step 3: .*did not end within 0.01 s"):
        asyncio.run(generation._weighed(3, ()))


def test_anchors_of_other_tasks_are_refused(tmp_path: Path) -> None:
    Ledger(tmp_path / "empty" / "ledger").close()
    with pytest.raises(UsageError, match="no judged episodes"):
        watch(WatchConfig(anchors=AnchorConfig(run=tmp_path / "empty")), tmp_path)


def test_a_detector_above_its_bound_stops_and_below_it_does_not() -> None:
    assert detector_alarms({"repetition": 0.2}, {"repetition": 0.3}) == []
    alarms = detector_alarms({"repetition": 0.4}, {"repetition": 0.3})
    with pytest.raises(GateError, match=r"repetition in 40\.0%"):
        raise_stops(alarms, where="step 3")
    raise_stops([Alarm("only logged", "log")], where="step 3")


def test_planted_findings_stop_a_step(tmp_path: Path) -> None:
    planted = [replace(e, findings=(Finding("repetition", "writer", 0, ""),)) for e in episodes(4)]
    one = watch(WatchConfig(stop_on={"repetition": 0.3}), tmp_path)
    assert observe(one, 0, episodes(4)) == {}
    with pytest.raises(GateError, match="repetition"):
        observe(one, 1, planted)


def test_likeness_to_people_is_measured_against_the_reference(tmp_path: Path) -> None:
    lines = [{"text": f"yeah i guess number {i} is fine", "conversation": str(i)} for i in range(20)]
    path = tmp_path / "people.jsonl"
    path.write_bytes(b"\n".join(orjson.dumps(line) for line in lines))
    config = WatchConfig(human_reference=HumanReferenceConfig(turns=path, every_steps=2))
    one = watch(config, tmp_path)
    found = observe(one, 0, episodes(8))
    assert found["human/n"] == 16 and found["human/words per turn, W1"] > 0.5
    assert observe(one, 1, episodes(8)) == {}
    path.write_text('{"words": 1}\n')
    with pytest.raises(DataError, match="without `text`"):
        read_turns(path)


def test_a_time_budget_stops_saves_and_goes_on_when_raised(model, ranks, tmp_path: Path) -> None:
    from rl.generation import Generation
    from rl.loop import train

    def config_of(max_hours: float) -> RLConfig:
        return runs.config(model, {"name": "grpo", "variant": "rae"}, watch={"max_hours": max_hours})

    config = config_of(1.0)
    whole, stopped = (RunFolder.prepare(tmp_path / name, config) for name in ("whole", "stopped"))
    train(config, whole, ranks)
    check = Generation._check_hours

    def late(self) -> None:
        if self.run.read_metrics("rl"):
            self._earlier_s = 7200.0
        check(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Generation, "_check_hours", late)
        with pytest.raises(GateError, match="max_hours") as caught:
            train(config, stopped, ranks)
    assert caught.value.exit_code == 3
    assert [p.name for p in stopped.checkpoints.glob("step-*")] == ["step-00000001"]
    train(config_of(9.0), RunFolder.prepare(stopped.path, config_of(9.0)), ranks)
    assert "max_hours: 9.0" in stopped.config.read_text()
    assert runs.metrics(stopped.path) == runs.metrics(whole.path)
    assert runs.weights(stopped.path) == runs.weights(whole.path)


def closed_generations(monkeypatch: pytest.MonkeyPatch) -> list[Generation]:
    """Grows by each generation that is closed from now on."""
    closed: list[Generation] = []
    close = Generation.close
    monkeypatch.setattr(Generation, "close", lambda self: (closed.append(self), close(self)))
    return closed


def test_engines_are_ended_when_the_run_cannot_be_tracked(model, ranks, tmp_path: Path, monkeypatch) -> None:
    from rl import session

    def missing(*_: object) -> None:
        raise UsageError("wandb is not installed")

    closed = closed_generations(monkeypatch)
    monkeypatch.setattr(session, "WandbTracker", missing)
    config = runs.config(model, {"name": "grpo"}, steps=1, wandb={"project": "test"})
    with pytest.raises(UsageError, match="not installed"):
        session.Session(config, RunFolder.prepare(tmp_path / "run", config), ranks)
    assert len(closed) == 1


def test_engines_are_ended_when_the_tracker_cannot_be_closed(model, ranks, tmp_path: Path, monkeypatch) -> None:
    from rl import session

    class FullDisk:
        def __init__(self, *_: object) -> None: ...

        def close(self) -> None:
            raise OSError("no space left on device")

    closed = closed_generations(monkeypatch)
    monkeypatch.setattr(session, "WandbTracker", FullDisk)
    config = runs.config(model, {"name": "grpo"}, steps=1, wandb={"project": "test"})
    opened = session.Session(config, RunFolder.prepare(tmp_path / "run", config), ranks)
    with pytest.raises(OSError, match="no space"):
        opened.close()
    assert closed == [opened.generation]


def test_metrics_go_to_wandb_offline_too(model, ranks, tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    from rl.loop import train

    config = runs.config(model, {"name": "grpo"}, steps=1, wandb={"project": "test"})
    run = RunFolder.prepare(tmp_path / "run", config)
    train(config, run, ranks)
    assert list((run.logs / "wandb").glob("offline-run-*/*.wandb"))
    (line,) = runs.metrics(run.path)
    for name in ("reward/mean", "reward/coverage", "length/mean", "train/entropy", "train/kl", "train/clip_share"):
        assert name in line
    (line,) = run.read_metrics("rl")
    for name in ("seconds/sync", "utilisation/generation", "utilisation/training", "rollout/prefix_cache_hit_rate"):
        assert name in line
    assert line["cost/usd"] == 0.0 and 0 <= line["useful_share"] <= 1
