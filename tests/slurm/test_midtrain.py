"""Midtraining under a real Slurm: torchrun over two nodes, preemption, a short wall-time limit, failures."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from common.files import read_json
from common.run_folder import RunFolder
from megatron_osim.checkpoint import list_checkpoints
from tests.megatron_osim.corpus import Corpus
from tests.slurm.conftest import Osim, has_ended, history, midtrain_recipe

pytestmark = [pytest.mark.slurm, pytest.mark.slow, pytest.mark.timeout(900)]
COMPARED = ("loss", "grad_norm", "lr", "trained_tokens", "bins", "updated")


def trained(run: Path) -> tuple[bytes, list[tuple[object, ...]]]:
    """The exported weights and the metrics of every step, without times."""
    lines = sorted(RunFolder(run).read_metrics("midtrain"), key=lambda line: line["step"])
    return (run / "hf" / "model.safetensors").read_bytes(), [tuple(line[k] for k in COMPARED) for line in lines]


def attempts(run: Path) -> int:
    return sum(words.startswith("started") for words in history(run))


def test_two_node_run_that_is_preempted_and_requeued_equals_the_undisturbed_run_bit_for_bit(
    osim: Osim, corpus: Corpus
) -> None:
    recipe = osim.file("recipe.yaml", midtrain_recipe(corpus, steps=400))
    run, alone = osim.folder / "run", osim.folder / "alone"
    osim("launch", "midtrain", "--recipe", recipe, "--cluster", osim.cluster(), "--out", run)
    osim.until(run, lambda: bool(list_checkpoints(run / "checkpoints")), "checkpoint")
    osim.slurm.run(
        "sbatch", "-p", "urgent", "-w", "n1,n2,n3", "-N3", "--exclusive", "-o", "/dev/null", "--wrap", "sleep 1"
    )
    osim("midtrain", "--recipe", recipe, "--ranks", "2", "--out", alone)
    osim.until(run, lambda: has_ended(run) and attempts(run) == 2, "end of the second attempt")
    assert history(run)[-1] == "ended 0"
    assert "asked to end" in history(run)
    assert "COMPLETED" in osim("launch", "status", run)
    assert trained(run) == trained(alone)
    checks = {c["name"]: c["ok"] for c in read_json(run / "launch" / "preflight.json")["checks"]}
    assert "all-reduce over 2 ranks (gloo)" in checks and all(checks.values())


def test_failed_gate_reaches_the_user_with_its_exit_code_and_its_words(osim: Osim, corpus: Corpus) -> None:
    recipe = osim.file("recipe.yaml", midtrain_recipe(corpus))
    run = osim.folder / "run"
    arguments = ("--recipe", recipe, "--cluster", osim.cluster(nodes=1), "--out", run, "--wait", "optimizer.lr=1e25")
    told = osim("launch", "midtrain", *arguments, expect=3)
    assert "FAILED, exit code 3" in told and "refused: " in told and "look at these bins" in told
    assert attempts(run) == 1
    assert "refused: " in osim("launch", "status", run)


def test_damaged_data_stops_the_job_in_its_preflight_before_anything_is_trained(osim: Osim, tmp_path: Path) -> None:
    from tests.megatron_osim.corpus import make_corpus

    (tmp_path / "own").mkdir()
    corpus = make_corpus(tmp_path / "own", sequence_length=128, rows=20)
    tokens = Path(f"{corpus.train}.bin")
    data = bytearray(tokens.read_bytes())
    data[100] ^= 1
    tokens.write_bytes(data)
    run = osim.folder / "run"
    recipe = osim.file("recipe.yaml", midtrain_recipe(corpus))
    told = osim(
        "launch", "midtrain", "--recipe", recipe, "--cluster", osim.cluster(nodes=1), "--out", run, "--wait", expect=2
    )
    assert "✗ dataset" in told and "checksum differs" in told and "fix: " in told
    assert not (run / "metrics.jsonl").exists() and attempts(run) == 1


def test_run_that_is_launched_cannot_be_launched_again_and_cancelled_with_save_it_resumes(
    osim: Osim, corpus: Corpus
) -> None:
    recipe = osim.file("recipe.yaml", midtrain_recipe(corpus, steps=600, checkpoint={"every_steps": 500}))
    run = osim.folder / "run"
    launch = ("launch", "midtrain", "--recipe", recipe, "--cluster", osim.cluster(nodes=1), "--out", run)
    osim(*launch)
    assert "is launched already" in osim(*launch, expect=2)
    osim.until(run, lambda: bool(RunFolder(run).read_metrics("midtrain")), "metric")
    assert "saves and ends" in osim("launch", "cancel", run, "--save")
    osim.until(run, lambda: has_ended(run), "end")
    assert history(run)[-1] == "ended 4" and len(list_checkpoints(run / "checkpoints")) == 1
    osim(*launch, "--wait")
    assert history(run)[-1] == "ended 0"


def test_job_that_waits_says_why_and_a_cancelled_one_exits_4(osim: Osim, corpus: Corpus) -> None:
    recipe = osim.file("recipe.yaml", midtrain_recipe(corpus))
    run = osim.folder / "run"
    held = osim.cluster(nodes=1, sbatch_flags={"begin": "now+1hour"})
    osim("launch", "midtrain", "--recipe", recipe, "--cluster", held, "--out", run)
    osim.until(run, lambda: "BeginTime" in osim("launch", "status", run), "reason")
    assert "PENDING (BeginTime" in osim("why", run)
    assert "cancelled" in osim("launch", "cancel", run)
    osim.until(run, lambda: "CANCELLED" in osim("launch", "status", run), "cancellation")


def test_what_slurm_refuses_is_refused_with_its_own_words(osim: Osim, corpus: Corpus) -> None:
    recipe = osim.file("recipe.yaml", midtrain_recipe(corpus))
    wrong = osim.cluster(partition="gold")
    told = osim("launch", "midtrain", "--recipe", recipe, "--cluster", wrong, "--out", osim.folder / "run", expect=2)
    assert "invalid partition" in told and "sbatch --test-only" in told


def test_wall_time_limit_shorter_than_the_run_gives_a_requeue_and_a_run_that_completes(
    osim: Osim, corpus: Corpus
) -> None:
    """Limits are in minutes and a crowded machine has its own pace, so this one is shortened once the run trains."""
    recipe = osim.file("recipe.yaml", midtrain_recipe(corpus, steps=2000, checkpoint={"every_steps": 1000}))
    cluster = osim.cluster(nodes=1, time="00:20:00", signal_lead_s=240)
    run = osim.folder / "run"
    started = time.monotonic()
    osim("launch", "midtrain", "--recipe", recipe, "--cluster", cluster, "--out", run)
    (job,) = read_json(run / "launch" / "record.json")["jobs"]

    def limit(minutes: int) -> None:
        update = ("scontrol", "update", f"JobId={job['job_id']}", f"TimeLimit={minutes}")
        osim.until(run, lambda: osim.slurm.accepts(*update), f"limit of {minutes} minutes")

    osim.until(run, lambda: bool(RunFolder(run).read_metrics("midtrain")), "metric")
    limit(4 + int(time.monotonic() - started) // 60)
    osim.until(
        run, lambda: any(words.startswith("requeued: time limit near, saved") for words in history(run)), "requeue"
    )
    limit(60)
    osim.until(run, lambda: has_ended(run), "end", timeout_s=800)
    told = history(run)
    assert told[-1] == "ended 0" and "asked to requeue" in told and attempts(run) == 2, told
    steps = [line["step"] for line in RunFolder(run).read_metrics("midtrain")]
    assert steps == list(range(1, 2001))
