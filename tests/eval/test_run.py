"""Evaluation runs: planned by content, resumable, honest about what has no score."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import signal
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from common.errors import ExitCode, Interrupted, UsageError
from envs import registry
from envs.engine import EngineError
from envs.ledger import Ledger, LedgerNotStarted, LedgerReader
from envs.players.base import Ask
from envs.players.scripted import ScriptedPlayer
from envs.types import Episode, FailureReason, Row, Score, Stop, Unscored
from eval.aggregate import aggregate, outcome_of
from eval.config import ConcurrencyConfig, EvalConfig
from eval.limiter import Limiter
from eval.plan import make_plan
from eval.rescore import rescore
from eval.results import LowCoverage, Results, text_table
from eval.run import Contestants, Progress, play_plan, run
from eval.store import LedgerStore, load_episodes
from tests.eval.samples import MemoryStore, contestants

CONFIG = EvalConfig(suite="hitom", limit=20, baseline_rows=60)


def evaluate(config: EvalConfig, who: Contestants, store: object, **more: object) -> Results:
    return asyncio.run(run(config, who, store, **more))  # type: ignore[arg-type]


def test_results_have_n_coverage_interval_parts_version_and_baseline() -> None:
    results = evaluate(CONFIG, contestants(0.5), MemoryStore(), name="half")
    task = results.task("hitom")
    assert (task.planned, task.scored, task.coverage) == (20, 20, 1.0)
    assert task.estimate is not None and task.estimate.low < task.estimate.value < task.estimate.high
    assert task.estimate.clusters == 4
    assert [p.name for p in task.parts] == [f"order {k}" for k in range(5)]
    assert task.version >= 1 and task.profile == "strict" and task.direction == "higher"
    assert task.baseline is not None and task.baseline.low <= task.baseline.value <= task.baseline.high
    assert "training rows" in task.baseline_note
    assert results.index is not None and not results.index.complete and "Partial" in results.index.definition


def test_baseline_never_sees_the_rows_it_is_measured_on() -> None:
    plan = make_plan(CONFIG, "m")
    train = {r.cluster for r in plan.tasks[0].training_rows}
    assert train and not train & {e.row.cluster for e in plan.episodes}


def test_plan_is_the_same_every_time_and_changes_with_what_is_asked() -> None:
    plan = make_plan(CONFIG, "m")
    assert plan.sha == make_plan(CONFIG, "m").sha
    assert len({e.key for e in plan.episodes}) == 20
    faster = CONFIG.model_copy(update={"concurrency": ConcurrencyConfig(limit=3)})
    assert make_plan(faster, "m").sha == plan.sha
    for other in (CONFIG.model_copy(update={"seed": 1}), CONFIG.model_copy(update={"limit": 10})):
        assert make_plan(other, "m").sha != plan.sha
    assert {e.key for e in make_plan(CONFIG, "other").episodes}.isdisjoint(e.key for e in plan.episodes)
    assert {e.content for e in make_plan(CONFIG, "other").episodes} == {e.content for e in plan.episodes}


def test_resume_plays_only_what_has_no_score() -> None:
    store = MemoryStore()
    evaluate(CONFIG.model_copy(update={"limit": 10}), contestants(0.5), store)
    assert len(store.puts) == 10
    evaluate(CONFIG, contestants(0.5), store)
    assert len(store.puts) == 20 == len(set(store.puts))


def test_interrupted_and_resumed_run_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    whole = evaluate(CONFIG, contestants(0.4), MemoryStore(), name="x")
    calls = 0

    def after_seven() -> bool:
        nonlocal calls
        calls += 1
        return calls > 7

    slow = CONFIG.model_copy(update={"concurrency": ConcurrencyConfig(limit=1, start=1)})
    with Ledger(tmp_path) as ledger:
        with pytest.raises(Interrupted) as stopped:
            evaluate(slow, contestants(0.4), LedgerStore(ledger), name="x", should_stop=after_seven)
        assert stopped.value.exit_code == ExitCode.INTERRUPTED and "13" in stopped.value.what
    with Ledger(tmp_path) as ledger:
        again = evaluate(CONFIG, contestants(0.4), LedgerStore(ledger), name="x")
    assert again.model_dump(exclude={"wall_s"}) == whole.model_dump(exclude={"wall_s"})


def _evaluate_slowly(folder: str) -> None:
    def slow_answer(ask: Ask) -> str:
        time.sleep(0.02)
        return "<answer>A</answer>"

    with Ledger(Path(folder)) as ledger:
        evaluate(CONFIG, Contestants("slow", ScriptedPlayer(slow_answer)), LedgerStore(ledger))


def test_killed_run_loses_only_what_was_in_flight(tmp_path: Path) -> None:
    child = multiprocessing.get_context("spawn").Process(target=_evaluate_slowly, args=(str(tmp_path),))
    child.start()
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and child.is_alive():
        if (tmp_path / "ledger.sqlite").is_file():
            with suppress(LedgerNotStarted), LedgerReader(tmp_path) as reader:
                if len(reader.keys()) >= 5:
                    break
        time.sleep(0.02)
    assert child.pid is not None
    os.kill(child.pid, signal.SIGKILL)
    child.join(10)
    with Ledger(tmp_path) as ledger:
        before = {r.key: r.episode for r in ledger.episodes()}
        played = 0

        def count(ask: Ask) -> str:
            nonlocal played
            played += 1
            return "<answer>A</answer>"

        results = evaluate(CONFIG, Contestants("slow", ScriptedPlayer(count)), LedgerStore(ledger))
        after = {r.key: r.episode for r in ledger.episodes()}
    assert played == 20 - len(before) and before.items() <= after.items()
    assert results.task("hitom").scored == 20


def failing(every: int) -> Contestants:
    count = 0

    def answer(ask: Ask) -> str:
        nonlocal count
        count += 1
        if count % every == 0:
            raise EngineError("out of memory")
        return "<answer>A</answer>"

    return Contestants("failing", ScriptedPlayer(answer))


def test_failures_are_counted_and_never_scored() -> None:
    config = CONFIG.model_copy(update={"attempts": 1, "concurrency": ConcurrencyConfig(limit=1, start=1)})
    with pytest.raises(LowCoverage) as raised:
        evaluate(config, failing(every=4), MemoryStore())
    task = raised.value.results.task("hitom")
    assert raised.value.exit_code == ExitCode.GATE and "engine_failed" in raised.value.what
    assert (task.planned, task.scored, task.unscored) == (20, 15, {"engine_failed": 5})
    assert task.estimate is not None and task.estimate.n == 15
    assert all(i.value is None for i in task.items if i.reason)


def test_lower_coverage_is_accepted_when_told_so() -> None:
    config = CONFIG.model_copy(update={"attempts": 1, "min_coverage": 0.5})
    assert evaluate(config, failing(every=4), MemoryStore()).coverage < 0.98


def test_unscored_episodes_are_played_again_and_the_ledger_keeps_both(tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"attempts": 1, "min_coverage": 0.0})
    with Ledger(tmp_path) as ledger:
        first = evaluate(config, failing(every=4), LedgerStore(ledger))
        second = evaluate(config, failing(every=10_000), LedgerStore(ledger))
        recorded = len(ledger.keys())
        found = load_episodes(ledger, make_plan(config, "failing"))
    assert first.coverage == 0.75 and second.coverage == 1.0
    assert recorded == 25 and len(found) == 20
    assert aggregate(make_plan(config, "failing"), found, name="x").coverage == 1.0


def test_every_try_of_an_episode_is_kept_because_its_calls_were_paid(tmp_path: Path) -> None:
    config = CONFIG.model_copy(
        update={"attempts": 3, "limit": 4, "min_coverage": 0.0, "concurrency": ConcurrencyConfig(limit=1, start=1)}
    )
    with Ledger(tmp_path) as ledger:
        results = evaluate(config, failing(every=2), LedgerStore(ledger))
        recorded = ledger.keys()
    # Every second turn fails, and is played again at once: 4 scores and 3 failed tries.
    assert (results.coverage, len(recorded)) == (1.0, 7)


def test_malformed_answers_are_the_policys_own_fault() -> None:
    player = ScriptedPlayer(lambda ask: "no idea")
    task = evaluate(CONFIG, Contestants("m", player), MemoryStore()).task("hitom")
    assert (task.scored, task.format_errors) == (20, 20) and task.estimate is not None and task.estimate.value == 0


def test_a_policy_seat_that_breaks_the_format_scores_0_for_an_episode_of_several_policy_seats() -> None:
    fault = Unscored(FailureReason.PARTNER_FAILED, "seat 'a' broke the format")
    own = Score(0.0, format_error=True)
    broken = Episode(
        *(Row("talk", "0", "0", {}), 0, (), {}, {}),
        outcomes={"a": own, "b": fault, "partner": fault},
        stop=Stop.FORMAT_ERROR,
    )
    assert outcome_of(broken, ["a", "b"]) == own == outcome_of(broken, ["b", "a"])
    assert outcome_of(broken, ["b"]) == fault, "a partner that broke the format says nothing about the policy"


def test_given_rows_are_asked_instead_of_the_tasks_own() -> None:
    rows = list(registry.get("hitom").rows("test", 20, 0))[10:15]
    results = evaluate(CONFIG, contestants(0.5), MemoryStore(), rows={"hitom": rows}, training_rows={"hitom": []})
    task = results.task("hitom")
    assert {i.row for i in task.items} == {r.id for r in rows} and task.baseline is None
    with pytest.raises(UsageError, match="same row twice"):
        make_plan(CONFIG, "m", rows={"hitom": [rows[0], rows[0]]})


def test_a_persons_own_files_are_the_rows_of_their_task(tmp_path: Path) -> None:
    shared = {"language": "en", "question": "Where?", "options": ["in", "out"], "correct_letter": "A"}
    stories = [f"Al left box {n}." for n in range(3)]
    path = tmp_path / "tombench.jsonl"
    path.write_text("\n".join(json.dumps({**shared, "story": story}) for story in stories))
    config = EvalConfig(suite="tombench", limit=2, rows={"tombench": path}, statistics=CONFIG.statistics)
    (task,) = make_plan(config, "m").tasks
    assert len(task.episodes) == 2
    assert {e.row.data["story"] for e in task.episodes} < set(stories)
    with pytest.raises(UsageError, match="fantom, which is not evaluated"):
        make_plan(EvalConfig(suite="tombench", rows={"fantom": path}), "m")


def test_epochs_play_each_row_several_times_in_one_cluster() -> None:
    with pytest.raises(ValueError, match="temperature"):
        EvalConfig(suite="hitom", epochs=2)
    asked = {"suite": "hitom", "limit": 10, "epochs": 3, "baseline_rows": 0, "decoding": {"temperature": 1.0}}
    config = EvalConfig.model_validate(asked)
    task = evaluate(config, contestants(0.5), MemoryStore()).task("hitom")
    assert (task.planned, {i.epoch for i in task.items}) == (30, {0, 1, 2})
    assert task.estimate is not None and (task.estimate.n, task.estimate.clusters) == (30, 2)


def test_progress_tells_mean_coverage_and_time_left() -> None:
    seen: list[Progress] = []
    evaluate(CONFIG, contestants(0.5), MemoryStore(), on_progress=seen.append)
    assert (seen[0].done, seen[-1].done, seen[-1].planned) == (0, 20, 20)
    assert seen[-1].mean is not None and seen[-1].half_width is not None and "hitom: 20/20" in seen[-1].line()


def test_unknown_tasks_and_unfinished_suites_are_refused_by_name() -> None:
    with pytest.raises(UsageError, match="hitom"):
        make_plan(EvalConfig(suite="hitomm"), "m")
    with pytest.raises(UsageError, match=r"(?s)cannot be evaluated.*twinvoice: .*fix: give their files"):
        make_plan(EvalConfig(suite="soul"), "m")
    with pytest.raises(UsageError, match="soul-corr"):
        make_plan(EvalConfig(suite="soul-corr"), "m")


def test_tasks_without_rows_are_skipped_only_when_told_so_and_then_named() -> None:
    config = EvalConfig(suite="soul", limit=5, missing="skip", baseline_rows=0)
    plan = make_plan(config, "m")
    played = {t.spec.name for t in plan.tasks}
    assert "hitom" in played and played.isdisjoint(plan.absent) and len(played) + len(plan.absent) == 27
    results = aggregate(plan, {}, name="x")
    assert results.absent == plan.absent and "Not evaluated: fantom" in text_table(results)


def test_files_of_a_data_folder_are_found_by_task_name(tmp_path: Path) -> None:
    row = {"language": "en", "question": "Where?", "options": ["in", "out"], "correct_letter": "A", "story": "S."}
    (tmp_path / "tombench_val.jsonl").write_text(json.dumps(row))
    plan = make_plan(EvalConfig(suite="tombench", data=tmp_path), "m")
    assert len(plan.episodes) == 1
    with pytest.raises(UsageError, match="no such folder"):
        make_plan(EvalConfig(suite="tombench", data=tmp_path / "gone"), "m")


def test_rescoring_generates_nothing_and_keeps_the_words() -> None:
    plan = make_plan(CONFIG, "m")
    spec = plan.tasks[0].spec
    assert "soul" in spec.profiles
    episodes = asyncio.run(play_plan(plan, contestants(0.5, "m"), MemoryStore()))
    new = make_plan(CONFIG.model_copy(update={"profile": "soul"}), "m")
    results, rescored = asyncio.run(rescore(plan, episodes, new, name="soul"))
    assert results.task("hitom").profile == "soul" and results.task("hitom").scored == 20
    assert {e.key for e in new.episodes} == set(rescored) and set(rescored).isdisjoint(episodes)
    old_of = {(e.content, e.epoch): episodes[e.key] for e in plan.episodes}
    for planned in new.episodes:
        old = old_of[planned.content, planned.epoch]
        assert replace(rescored[planned.key], outcomes={}, scorer="") == replace(old, outcomes={}, scorer="")


def test_results_survive_saving_and_other_schemas_are_refused(tmp_path: Path) -> None:
    results = evaluate(CONFIG, contestants(0.5), MemoryStore(), name="x")
    results.save(tmp_path / "results.json")
    assert Results.load(tmp_path) == results
    text = (tmp_path / "results.json").read_text()
    (tmp_path / "results.json").write_text(text.replace('"schema_version": 1', '"schema_version": 99'))
    with pytest.raises(Exception, match="schema 99"):
        Results.load(tmp_path)
    (tmp_path / "results.json").write_text(text[:200])
    with pytest.raises(Exception, match="not valid JSON"):
        Results.load(tmp_path)


def test_concurrency_shrinks_on_failures_and_recovers() -> None:
    limiter = Limiter(ConcurrencyConfig(limit=50, start=10))
    for _ in range(10):
        limiter.succeeded()
    assert limiter.limit == 20, "doubled until something fails"
    limiter.strained()
    assert limiter.limit == 16
    limiter.strained()
    assert limiter.limit == 16, "one cut per round of failures"
    for _ in range(16):
        limiter.succeeded()
    assert limiter.limit == 17, "one at a time after a failure"
    for _ in range(2000):
        limiter.succeeded()
    assert limiter.limit == 50


def test_no_more_episodes_in_flight_than_the_limit() -> None:
    running, most = 0, 0

    async def one(limiter: Limiter) -> None:
        nonlocal running, most
        async with limiter.slot():
            running += 1
            most = max(most, running)
            await asyncio.sleep(0.001)
            running -= 1

    async def all_of_them() -> None:
        limiter = Limiter(ConcurrencyConfig(limit=4, adaptive=False))
        await asyncio.gather(*(one(limiter) for _ in range(30)))

    asyncio.run(all_of_them())
    assert most == 4
