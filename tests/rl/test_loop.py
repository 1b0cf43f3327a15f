"""The whole loop on a tiny model with the embedded engine."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from common.errors import ExitCode, GateError, Interrupted
from common.run_folder import RunFolder
from envs.types import Episode, Finding, Row
from tests.rl import runs

ALGORITHMS = {
    "grpo": {"name": "grpo"},
    "verbal_feedback": {"name": "verbal_feedback"},
    "opd": {"name": "opd"},
    "opd_ema": {"name": "opd", "teacher": "ema"},
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
    assert {k.phase == "refined" for k in keys} == ({True, False} if algorithm == "verbal_feedback" else {False})
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


def test_a_log_prob_gap_above_its_bound_stops_the_run_before_training(model, ranks, tmp_path: Path) -> None:
    config = runs.config(model, {"name": "grpo"}, gates={"max_logprob_gap": 1e-12})
    with pytest.raises(GateError, match="log-prob difference") as caught:
        train(tmp_path / "run", ranks, config)
    assert caught.value.exit_code == ExitCode.GATE
    assert runs.metrics(tmp_path / "run") == [] and runs.ledger(tmp_path / "run")["consumed"] == []


def test_too_many_failed_episodes_stop_the_run_and_are_not_recorded(model, ranks, tmp_path: Path) -> None:
    sampling = {"max_tokens": 12, "max_context_tokens": 256}
    config = runs.config(model, {"name": "grpo"}, sampling=sampling, tasks=[{"task": "tests.rl.failing:spec"}])
    with pytest.raises(GateError, match="have no score"):
        train(tmp_path / "run", ranks, config)
    assert runs.ledger(tmp_path / "run")["episodes"] == []


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


def test_screening_drops_the_seats_that_a_chosen_detector_found() -> None:
    from rl.collect import screened_seats

    findings = (Finding("repetition", "alice", 0, ""), Finding("copying", "bob", 1, ""))
    episode = Episode(Row("t", "1", "1", {}), 0, (), {}, {}, {}, findings=findings)
    assert screened_seats(episode, ["repetition"]) == {"alice"}
    assert screened_seats(episode, ["judge_address"]) == screened_seats(episode, []) == set()


@pytest.mark.slow
def test_resume_after_kills_in_every_phase_equals_the_uninterrupted_run(model, tmp_path: Path) -> None:
    config = runs.config(model, {"name": "verbal_feedback"}, steps=4)
    whole, killed = (RunFolder.prepare(tmp_path / name, config).path for name in ("whole", "killed"))
    reference = runs.start(whole)
    # Mid-rollout of step 0; after training of step 1, before its record; before the sync of step 2; while saving.
    for phase in ("put_episode:4", "put_consumed:2", "sync:4", "log:1"):
        process = runs.start(killed, phase)
        assert process.wait(120) == -signal.SIGKILL, runs.log_of(killed)
    assert runs.start(killed).wait(120) == 0, runs.log_of(killed)
    assert reference.wait(120) == 0, runs.log_of(whole)
    assert runs.metrics(killed) == runs.metrics(whole)
    assert runs.weights(killed) == runs.weights(whole)
    assert runs.ledger(killed) == runs.ledger(whole)


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
