"""The midtraining worker as a process: killed, stopped and resumed it equals the run that was left alone."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from common.errors import ConfigError, ExitCode, GateError
from common.run_folder import RunFolder
from data_tools.packed import PackedShard
from megatron_osim.anomaly import AnomalyWatch
from megatron_osim.checkpoint import list_checkpoints
from megatron_osim.config import (
    AnomalyConfig,
    CheckpointConfig,
    DataConfig,
    MidtrainConfig,
    OptimizerConfig,
    SourceConfig,
)
from megatron_osim.data import TrainingData, ValidationData
from megatron_osim.midtrain import Midtraining
from megatron_osim.runtime import Ranks
from tests.megatron_osim.conftest import SEQUENCE_LENGTH
from tests.megatron_osim.corpus import Corpus
from tests.megatron_osim.samples import VOCAB, tiny

STEPS = 30
COMPARED = ("loss", "grad_norm", "lr", "trained_tokens", "bins", "epochs", "updated")


def config(corpus: Corpus, **changes: object) -> MidtrainConfig:
    base = {
        "architecture": tiny(num_hidden_layers=2),
        "tokenizer": corpus.tokenizer,
        "data": {
            "sources": [{"name": "train", "prefixes": [corpus.train]}, {"name": "other", "prefixes": [corpus.other]}],
            "validation": [{"name": "other", "prefixes": [corpus.other]}],
            "sequence_length": SEQUENCE_LENGTH,
        },
        "optimizer": OptimizerConfig(lr=1e-3, warmup_steps=5),
        "checkpoint": CheckpointConfig(every_steps=4, keep_last=3),
        "steps": STEPS,
        "global_batch": 2,
        "validate_every": 10,
    }
    return MidtrainConfig.model_validate(base | changes)


def start(run: Path, rendezvous: Path) -> subprocess.Popen[str]:
    rendezvous.unlink(missing_ok=True)
    return subprocess.Popen(
        [sys.executable, "-m", "megatron_osim.worker", str(run), "--rendezvous", rendezvous.as_uri()],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for(condition: object, process: subprocess.Popen[str], timeout_s: float = 120.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():  # type: ignore[operator]
        assert process.poll() is None, process.communicate()[0][-4000:]
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.fixture()
def processes() -> Iterator[list[subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []
    yield started
    for p in started:
        p.kill()
        p.wait()


@pytest.mark.slow
def test_killed_while_saving_then_stopped_then_resumed_equals_the_run_left_alone(
    single: Ranks, corpus: Corpus, tmp_path: Path, processes: list[subprocess.Popen[str]]
) -> None:
    alone = RunFolder.prepare(tmp_path / "alone", config(corpus))
    Midtraining(alone, config(corpus), single).run()
    run = RunFolder.prepare(tmp_path / "run", config(corpus))

    processes.append(killed := start(run.path, tmp_path / "rendezvous"))
    # A save is in progress, and an earlier one is whole.
    wait_for(lambda: list_checkpoints(run.checkpoints) and list(run.checkpoints.glob(".step-*.tmp")), killed)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert list_checkpoints(run.checkpoints)

    processes.append(stopped := start(run.path, tmp_path / "rendezvous"))
    before = len(run.read_metrics("midtrain"))
    wait_for(lambda: len(run.read_metrics("midtrain")) > before + 2, stopped)
    stopped.send_signal(signal.SIGTERM)
    assert stopped.wait(60) == ExitCode.INTERRUPTED
    assert list_checkpoints(run.checkpoints)[-1].step == run.read_metrics("midtrain")[-1]["step"] < STEPS

    processes.append(resumed := start(run.path, tmp_path / "rendezvous"))
    output = resumed.communicate(timeout=120)[0]
    assert resumed.returncode == ExitCode.DONE, output[-4000:]

    def numbers(folder: RunFolder) -> list[dict]:
        lines = sorted(folder.read_metrics("midtrain"), key=lambda m: m["step"])
        return [{key: line[key] for key in ("step", *COMPARED)} for line in lines]

    assert numbers(run) == numbers(alone)
    assert [m["loss"] for m in run.read_metrics("midtrain_validation")] == [
        m["loss"] for m in alone.read_metrics("midtrain_validation")
    ]
    mine, theirs = (load_file(f.path / "hf" / "model.safetensors") for f in (run, alone))
    assert all(torch.equal(mine[key], theirs[key]) for key in theirs)


def test_the_loss_falls_and_every_source_is_validated(single: Ranks, corpus: Corpus, tmp_path: Path) -> None:
    run = RunFolder.prepare(tmp_path, config(corpus, export_hf=False))
    Midtraining(run, config(corpus, export_hf=False), single).run()
    lines = run.read_metrics("midtrain")
    assert [m["step"] for m in lines] == list(range(1, STEPS + 1))
    assert lines[-1]["loss"] < lines[0]["loss"] - 1
    validation = run.read_metrics("midtrain_validation")
    assert [m["step"] for m in validation] == [0, 10, 20, 30]
    assert validation[-1]["loss"]["other"] < validation[0]["loss"]["other"] - 1
    for key in ("tokens_per_s", "tflops_per_rank", "peak_memory_gib", "lr"):
        assert lines[-1][key] > 0


def test_a_loss_that_is_not_finite_stops_before_the_weights_change_and_names_the_batch(
    single: Ranks, corpus: Corpus, tmp_path: Path
) -> None:
    run = RunFolder.prepare(tmp_path, config(corpus))
    midtraining = Midtraining(run, config(corpus), single)
    chunk = midtraining.trainer.chunks[0]
    with torch.no_grad():
        chunk.decoder.final_layernorm.weight[0] = float("nan")
    before = [p.clone() for p in chunk.parameters()]
    with pytest.raises(GateError, match="the loss is nan") as e:
        midtraining.run()
    assert str(corpus.train.name) in str(e.value)
    assert e.value.exit_code == ExitCode.GATE
    assert all(
        torch.equal(
            a,
            b,
        )
        or a.isnan().any()
        for a, b in zip(before, chunk.parameters(), strict=True)
    )
    [line] = run.read_metrics("midtrain_anomaly")
    assert len(line["batch"]) == 2
    assert line["batch"][0]["data_sources"]


def test_spikes_are_told_from_noise_and_skips_are_bounded() -> None:
    watch = AnomalyWatch(AnomalyConfig(action="skip", spike_factor=4.0, window=10, max_skips=2))
    assert all(watch.accept(1.0, norm) for norm in (9.0, 1.0, 1.2, 0.9, 1.1))
    assert not watch.accept(1.0, 6.0)
    assert "times the usual" in watch.reason
    assert watch.accept(1.0, 1.0)
    for expected in (False, False, True):
        assert not watch.accept(float("nan"), 1.0)
        assert watch.must_stop is expected
    assert AnomalyWatch(AnomalyConfig(action="stop")).must_stop


def test_skips_in_a_row_go_on_counting_after_a_resume(single: Ranks, corpus: Corpus, tmp_path: Path) -> None:
    skipping = {
        "anomaly": AnomalyConfig(action="skip", max_skips=3),
        "checkpoint": CheckpointConfig(every_steps=1),
        "validate_every": None,
    }
    two_steps = config(corpus, steps=2, export_hf=False, **skipping)
    run = RunFolder.prepare(tmp_path, two_steps)
    midtraining = Midtraining(run, two_steps, single)
    with torch.no_grad():
        midtraining.trainer.chunks[0].decoder.final_layernorm.weight[0] = float("nan")
    midtraining.run()
    with pytest.raises(GateError, match="step 4 refused"):
        Midtraining(run, config(corpus, **skipping), single).run()
    # The save that was under way when the step was refused is whole.
    assert [c.step for c in list_checkpoints(run.checkpoints)] == [2, 3]


def test_replicas_together_read_the_global_batch(corpus: Corpus) -> None:
    data = TrainingData(config(corpus).data, global_batch=4, seed=0, vocab_size=VOCAB)

    def ids(replica: int, replicas: int) -> list[bytes]:
        return [b.token_ids_T.numpy().tobytes() for b in data.step(3, replica=replica, replicas=replicas)]

    assert sorted(ids(0, 2) + ids(1, 2)) == sorted(ids(0, 1))
    assert [d["shard"] for d in data.describe(3)]


def test_weights_are_the_masks_of_the_corpus(corpus: Corpus) -> None:
    data = TrainingData(config(corpus).data, global_batch=1, seed=0, vocab_size=VOCAB)
    source = data.sources[0]
    batch, packed = source.batch(0), PackedShard.open(corpus.train).bin(0)
    assert batch.token_ids_T.tolist() == packed.token_ids.tolist()
    starts = np.cumsum([0, *packed.segment_lengths])[:-1]
    train = packed.train.copy()
    train[starts] = False  # nothing predicts the first token of a sample
    assert batch.values["weight"].sum() == train.sum()
    assert (batch.values["weight"].numpy()[:-1] == train[1:]).all()


def test_validation_is_split_over_replicas_without_counting_anything_twice(corpus: Corpus) -> None:
    data = ValidationData(config(corpus).data, max_bins=3, vocab_size=VOCAB)
    shares = [data.batches(data.sources[0], replica=r, replicas=2, multiple_of=2) for r in range(2)]
    assert [len(s) for s in shares] == [2, 2]
    real = [b for share in shares for b in share if b.values["weight"].sum() > 0]
    assert len(real) == 3


def test_everything_wrong_with_the_data_is_said_at_once(corpus: Corpus) -> None:
    broken = DataConfig(
        sources=(
            SourceConfig(name="long", prefixes=(corpus.train,)),
            SourceConfig(name="missing", prefixes=(Path("nowhere/shard"),)),
        ),
        sequence_length=64,
    )
    with pytest.raises(ConfigError) as e:
        TrainingData(broken, global_batch=1, seed=0, vocab_size=VOCAB)
    assert len(e.value.violations) == 2
    with pytest.raises(ConfigError, match="vocabulary"):
        TrainingData(config(corpus).data, global_batch=1, seed=0, vocab_size=10)
