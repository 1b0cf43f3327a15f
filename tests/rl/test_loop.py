"""The whole loop on a tiny model with the embedded engine."""

from __future__ import annotations

import asyncio
import re
import signal
import socket
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from common.errors import ExitCode, GateError, Interrupted, OsimError
from common.files import read_json
from common.run_folder import RunFolder
from envs.types import Episode, FailureReason, Finding, Row, Score, SeatTrace, Stop, Unscored
from tests.rl import runs

ALGORITHMS = {
    "grpo": {"name": "grpo"},
    "verbal_feedback": {"name": "verbal_feedback"},
    "opd": {"name": "opd"},
    "opd_ema": {"name": "opd", "teacher": "ema", "divergence": "top_k", "top_k": 5},
    "sdpo_topk": {"name": "verbal_feedback", "objective": "sdpo_topk", "top_k": 5},
    "expert_sft": {"name": "expert_sft", "min_reward": 0.0},
}


def train(run_dir: Path, ranks, config) -> RunFolder:
    from rl.loop import train as train_loop

    run = RunFolder.prepare(run_dir, config)
    train_loop(config, run, ranks)
    return run


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_loop_trains_syncs_and_records_with_every_algorithm(algorithm: str, model, ranks, tmp_path: Path) -> None:
    config = runs.config(model, ALGORITHMS[algorithm], steps=2, ema_decay=0.5 if algorithm == "opd_ema" else None)
    wants_feedback = ALGORITHMS[algorithm]["name"] == "verbal_feedback"
    run = train(tmp_path / "run", ranks, config)
    lines = runs.metrics(run.path)
    assert [line["step"] for line in lines] == [0, 1]
    for line in lines:
        assert line["reward/n"] == 6 and line["reward/coverage"] == 1.0
        assert line["train/optimizer_steps"] == 1 and line["train/tokens"] > 0 and line["train/grad_norm"] > 0
        assert 0 < line["gap/max"] < 1e-4 and line["gap/tokens"] > 0
    book = runs.ledger(run.path)
    keys = [key for key, *_ in book["episodes"]]
    assert len([k for k in keys if k.phase == "rollout"]) == 12
    assert {k.phase == "refined" for k in keys} == ({True, False} if wants_feedback else {False})
    assert {use.step for use in book["consumed"]} == {0, 1}
    assert all(use.key.step == use.step for use in book["consumed"])
    versions = {s.version for _, _, _, t in book["episodes"] for s in t["writer"].segments if s.version is not None}
    assert versions == {0, 1}, "each step sampled from its own weights"
    assert runs.weights(run.path)


def test_verbal_feedback_trains_refinements_under_both_prompts(model, ranks, tmp_path: Path) -> None:
    config = runs.config(model, {"name": "verbal_feedback"}, steps=1)
    book = runs.ledger(train(tmp_path / "run", ranks, config).path)
    used = {(use.key.phase, use.context) for use in book["consumed"]}
    assert used == {("rollout", "plain"), ("refined", "plain"), ("refined", "feedback")}


def test_a_mixture_learns_each_task_by_its_own_algorithm(model, ranks, tmp_path: Path) -> None:
    tasks = [
        {"task": runs.LETTERS, "algorithm": {"name": "grpo"}, "weight": 2},
        {"task": "hitom_mini", "algorithm": {"name": "opd"}, "rows": 10, "samples_per_prompt": 2},
    ]
    sampling = {"max_tokens": 12, "max_context_tokens": 1000}
    config = runs.config(model, {}, tasks=tasks, groups_per_step=3, steps=1, sampling=sampling)
    run = train(tmp_path / "run", ranks, config)
    (line,) = runs.metrics(run.path)
    assert line[f"{runs.LETTERS}/reward/n"] == 6 and line["hitom_mini/reward/n"] == 2
    components = {(u.key.prompt_id.split("/")[0], u.component) for u in runs.ledger(run.path)["consumed"]}
    assert components == {("letters", "policy_gradient"), ("hitom_mini", "reverse_kl")}


def test_a_mixture_routes_each_task_to_its_own_external_teacher(model, ranks, tmp_path: Path) -> None:
    """A teacher that equals the student has nothing to teach; the other task's teacher has."""
    from tests.rl.rollout.conftest import write_checkpoint

    other = write_checkpoint(tmp_path / "other", seed=9)

    def opd(teacher: Path) -> dict[str, object]:
        return {"name": "opd", "teacher": "external", "external_model": str(teacher), "privileged_context": False}

    tasks = [
        {"task": runs.LETTERS, "algorithm": opd(model)},
        {"task": "hitom_mini", "algorithm": opd(other), "rows": 10},
    ]
    sampling = {"max_tokens": 12, "max_context_tokens": 1000}
    config = runs.config(model, {}, tasks=tasks, steps=1, samples_per_prompt=2, sampling=sampling)
    graded: dict[str, list[float]] = {}

    def note(actor, batch, *, step):
        for s in batch:
            gap = abs(s.teacher_logprobs - s.old_logprobs)[s.trainable].max()
            graded.setdefault(s.prompt_id.split("/")[0], []).append(float(gap))
        return original(actor, batch, step=step)

    from rl.actor.actor import Actor

    original = Actor.update
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Actor, "update", note)
        train(tmp_path / "run", ranks, config)
    assert max(graded["letters"]) < 1e-4 and min(graded["hitom_mini"]) > 0.01


def test_a_log_prob_gap_above_its_bound_stops_the_run_before_training(model, ranks, tmp_path: Path) -> None:
    config = runs.config(model, {"name": "grpo"}, gates={"max_logprob_gap": 1e-12})
    with pytest.raises(GateError, match="log-prob difference") as caught:
        train(tmp_path / "run", ranks, config)
    assert caught.value.exit_code == ExitCode.GATE
    # Both sides once more: the reader sees which of them was wrong.
    pattern = r"engine (\S+) \(weights 0\), trainer ([^;]+); .* engine says (\S+), the trainer (-?[\d.]*\d)"
    found = re.search(pattern, str(caught.value))
    assert found and np.ptp([float(v) for v in found.groups()]) < 1e-4, caught.value
    listed = read_json(tmp_path / "run" / "logs" / "logprob-gap.json")["samples"]
    assert listed and all(len(s["positions"]) == len(s["engine"]) == len(s["trainer"]) for s in listed)
    assert runs.metrics(tmp_path / "run") == [] and runs.ledger(tmp_path / "run")["consumed"] == []


def test_too_many_failed_episodes_stop_the_run_and_are_not_recorded(model, ranks, tmp_path: Path) -> None:
    sampling = {"max_tokens": 12, "max_context_tokens": 256}
    config = runs.config(model, {"name": "grpo"}, sampling=sampling, tasks=[{"task": "tests.rl.failing:spec"}])
    with pytest.raises(GateError, match="have no score"):
        train(tmp_path / "run", ranks, config)
    assert runs.ledger(tmp_path / "run")["episodes"] == []


def test_a_hung_judge_ends_the_step_at_its_deadline_and_is_named(model, ranks, tmp_path: Path) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(64)  # connections are taken, nothing is ever answered
        judge = {
            "model": "mute",
            "base_url": f"http://127.0.0.1:{silent.getsockname()[1]}/v1",
            "attempt_timeout_s": 0.5,
            "deadline_s": 1.0,
            "max_retries": 0,
        }
        tasks = [{"task": "tests.rl.judged:spec"}]
        config = runs.config(model, {}, tasks=tasks, client={"judge": judge})
        started = time.monotonic()
        with pytest.raises(GateError, match=r"6 of 6 episodes have no score \(6 judge_failed.*letters\.judge"):
            train(tmp_path / "run", ranks, config)
    assert time.monotonic() - started < 60
    assert runs.ledger(tmp_path / "run")["consumed"] == []


def test_a_step_that_does_not_end_names_what_is_late(model, ranks, tmp_path: Path, monkeypatch) -> None:
    from rl.rollout.embedded import EmbeddedEngine

    async def never(self, *arguments, **named):
        await asyncio.sleep(3600)

    monkeypatch.setattr(EmbeddedEngine, "generate", never)
    with pytest.raises(GateError, match="6 of 6 attempts did not end within 1 s: letters/"):
        train(tmp_path / "run", ranks, runs.config(model, {"name": "grpo"}, timeout_s=1.0))


def test_a_full_disk_stops_the_run_and_freed_it_goes_on_training_nothing_twice(model, ranks, tmp_path: Path) -> None:
    from envs.ledger import Ledger

    config = runs.config(model, {"name": "grpo"}, checkpoint={"every_steps": 1})
    whole = train(tmp_path / "whole", ranks, config)
    opened = Ledger.__init__

    def small(self, folder: Path) -> None:
        opened(self, folder)
        (pages,) = self._writing.execute("PRAGMA page_count").fetchone()
        # SQLite's own "disk is full", two pages from here.
        self._writing.execute(f"PRAGMA max_page_count={pages + 2}")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Ledger, "__init__", small)
        with pytest.raises(OsimError, match="full"):
            train(tmp_path / "full", ranks, config)
    train(tmp_path / "full", ranks, config)
    assert runs.metrics(tmp_path / "full") == runs.metrics(whole.path)
    assert runs.weights(tmp_path / "full") == runs.weights(whole.path)
    assert once_each(runs.ledger(tmp_path / "full"))


def test_a_stop_file_saves_and_the_same_command_finishes_the_run(model, ranks, tmp_path: Path) -> None:
    config = runs.config(model, {"name": "grpo"})
    whole = train(tmp_path / "whole", ranks, config)
    stopped = RunFolder.prepare(tmp_path / "stopped", config)
    (stopped.path / "stop").touch()
    with pytest.raises(Interrupted):
        train(stopped.path, ranks, config)
    (stopped.path / "stop").unlink()
    train(stopped.path, ranks, config)
    assert runs.metrics(stopped.path) == runs.metrics(whole.path)
    assert runs.weights(stopped.path) == runs.weights(whole.path)


def test_a_finished_run_starts_nothing_again(model, ranks, tmp_path: Path) -> None:
    config = runs.config(model, {"name": "grpo"}, steps=1)
    run = train(tmp_path / "run", ranks, config)
    before = run.metrics.read_bytes(), (run.path / "hf" / "model.safetensors").stat().st_mtime_ns
    train(run.path, ranks, config)
    assert (run.metrics.read_bytes(), (run.path / "hf" / "model.safetensors").stat().st_mtime_ns) == before


def test_the_actor_starts_from_a_megatron_checkpoint_too(model, ranks, tmp_path: Path) -> None:
    from rl.session import build_actor

    run = train(tmp_path / "run", ranks, runs.config(model, {"name": "opd"}, steps=1))
    config = runs.config(model, {"name": "grpo"}, init_checkpoint=str(run.checkpoints / "step-00000001"))
    found = {name: t.numpy().tobytes() for name, t in build_actor(config, ranks).stream_weights()}
    assert found == runs.weights(run.path)


def test_a_policy_that_breaks_the_format_in_self_play_is_no_failure_of_the_run() -> None:
    from rl.collect import _failures

    partner = Unscored(FailureReason.PARTNER_FAILED, "seat 'a' broke the format")
    traces = {"a": SeatTrace("a", True), "b": SeatTrace("b", True)}
    outcomes = {"a": Score(0.0, format_error=True), "b": partner}
    broken = Episode(Row("t", "1", "1", {}), 0, (), {}, traces, outcomes, stop=Stop.FORMAT_ERROR)
    assert _failures(broken) == []
    by_another = replace(broken, traces={**traces, "a": SeatTrace("a", False)})
    assert _failures(by_another) == [partner], "a partner that does not learn has failed"
    assert _failures(replace(broken, stop=Stop.FAILED)) == [partner]


def test_screening_drops_the_seats_that_a_chosen_detector_found() -> None:
    from rl.collect import screened_seats

    findings = (Finding("repetition", "alice", 0, ""), Finding("copying", "bob", 1, ""))
    episode = Episode(Row("t", "1", "1", {}), 0, (), {}, {}, {}, findings=findings)
    assert screened_seats(episode, ["repetition"]) == {"alice"}
    assert screened_seats(episode, ["judge_address"]) == screened_seats(episode, []) == set()


@pytest.mark.slow
@pytest.mark.parametrize("max_staleness", [0, 1])
def test_resume_after_kills_in_every_phase_equals_the_uninterrupted_run(max_staleness: int, model, tmp_path) -> None:
    config = runs.config(
        model,
        {"name": "verbal_feedback"},
        steps=4,
        max_staleness=max_staleness,
        checkpoint={"every_steps": 1},
    )
    whole, killed = (RunFolder.prepare(tmp_path / name, config).path for name in ("whole", "killed"))
    reference = runs.start(whole)
    # Mid-rollout of step 0; after training of step 1, before its record; while the second checkpoint is made visible;
    # before the second sync after the resume from the first.
    for phase in ("put_episode:4", "put_consumed:2", "_publish:2", "sync:3"):
        process = runs.start(killed, phase)
        assert process.wait(120) == -signal.SIGKILL, runs.log_of(killed)
    assert runs.start(killed).wait(120) == 0, runs.log_of(killed)
    assert reference.wait(120) == 0, runs.log_of(whole)
    assert runs.metrics(killed) == runs.metrics(whole)
    assert runs.weights(killed) == runs.weights(whole)
    assert runs.ledger(killed) == runs.ledger(whole)
    assert once_each(runs.ledger(killed))


def once_each(book) -> bool:
    """Every draft was trained on in its own step, exactly once per context and component."""
    uses = [(u.key, u.seat, u.context, u.component) for u in book["consumed"]]
    return len(set(uses)) == len(uses) and all(u.step == u.key.step for u in book["consumed"])


def versions_by_step(run: Path) -> dict[int, set[int]]:
    found: dict[int, set[int]] = {}
    for key, _, _, traces in runs.ledger(run)["episodes"]:
        versions = {s.version for s in traces["writer"].segments if s.version is not None}
        found.setdefault(key.step, set()).update(versions)
    return found


def test_one_step_off_policy_every_step_is_played_by_the_weights_before(model, ranks, tmp_path: Path) -> None:
    config = runs.config(model, {"name": "grpo"}, max_staleness=1)
    run = train(tmp_path / "run", ranks, config)
    assert versions_by_step(run.path) == {0: {0}, 1: {0}, 2: {1}}
    lines = runs.metrics(run.path)
    assert [line["staleness/max"] for line in lines] == [0, 1, 1]
    assert all(0 < line["gap/max"] < 1e-4 for line in lines), "the gate compares present weights, not old rollouts"
    assert lines[2]["off_policy/max"] > 1e-4 and lines[2]["train/importance"] != 1.0
    assert once_each(runs.ledger(run.path))


def test_a_step_is_played_while_the_one_before_is_trained(model, ranks, tmp_path: Path, monkeypatch) -> None:
    from rl.actor.actor import Actor
    from rl.collect import Collector

    order: list[str] = []
    original_play, original_update = Collector.play, Actor.update

    async def play(self, step, stop=lambda: False):
        order.append(f"play {step}")
        return await original_play(self, step, stop)

    def update(self, batch, *, step):
        order.append(f"train {step}")
        return original_update(self, batch, step=step)

    monkeypatch.setattr(Collector, "play", play)
    monkeypatch.setattr(Actor, "update", update)
    train(tmp_path / "run", ranks, runs.config(model, {"name": "grpo"}, max_staleness=1))
    assert order == ["play 0", "play 1", "train 0", "play 2", "train 1", "train 2"]


def test_rollouts_staler_than_the_bound_stop_the_run(model, ranks, tmp_path: Path) -> None:
    """A run of one-step-off rollouts that goes on as a synchronous one finds them too old."""
    config = runs.config(model, {"name": "grpo"}, max_staleness=1, steps=4, checkpoint={"every_steps": 1})
    run = RunFolder.prepare(tmp_path / "run", config)
    process = runs.start(run.path, "put_consumed:3")
    assert process.wait(120) == -signal.SIGKILL, runs.log_of(run.path)
    from rl.loop import train as train_loop

    with pytest.raises(GateError, match="1 steps old, the bound is 0"):
        train_loop(config.model_copy(update={"max_staleness": 0}), run, ranks)


def test_sigterm_saves_and_exits_resumable(model, tmp_path: Path) -> None:
    config = runs.config(model, {"name": "grpo"}, steps=500)
    run = RunFolder.prepare(tmp_path / "run", config)
    process = runs.start(run.path)
    deadline = time.monotonic() + 90
    while len(run.read_metrics("rl")) < 2 and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.1)
    process.terminate()
    assert process.wait(60) == ExitCode.INTERRUPTED, runs.log_of(run.path)
    assert list(run.checkpoints.glob("step-*"))


@pytest.mark.sglang
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_loop_passes_its_gates_with_a_real_sglang_server(model, ranks, tmp_path: Path) -> None:
    config = runs.config(
        model, {"name": "verbal_feedback"}, rollout={"kind": "sglang", "start_timeout_s": 600}, steps=2
    )
    run = train(tmp_path / "run", ranks, config)
    lines = runs.metrics(run.path)
    assert [line["step"] for line in lines] == [0, 1]
    assert all(0 < line["gap/max"] < 1e-4 and line["train/optimizer_steps"] == 1 for line in lines)
    versions = {
        s.version
        for _, _, _, traces in runs.ledger(run.path)["episodes"]
        for s in traces["writer"].segments
        if s.version is not None
    }
    assert versions == {0, 1}
