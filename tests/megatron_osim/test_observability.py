"""What a run says about itself is true: rates, FLOPs, losses by source, traces, W&B, evaluations on the way."""

from __future__ import annotations

import json
import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from common.config import load
from common.errors import UsageError
from common.run_folder import RunFolder
from common.tracking import WandbConfig
from megatron_osim.anomaly import AnomalyWatch
from megatron_osim.batch import PackedBatch
from megatron_osim.config import AnomalyConfig, GenerationConfig, MidtrainConfig, ProfileConfig
from megatron_osim.data import TrainingData
from megatron_osim.epochs import with_steps
from megatron_osim.losses import TokenScores
from megatron_osim.midtrain import Midtraining
from megatron_osim.read_ahead import ReadAhead
from megatron_osim.runtime import Ranks
from megatron_osim.source_loss import SourceLoss
from megatron_osim.throughput import Throughput, batch_flops
from megatron_osim.train_step import LossSum
from tests.megatron_osim.corpus import Corpus
from tests.megatron_osim.samples import VOCAB, packed, tiny
from tests.megatron_osim.test_midtrain import config as make_config


def short(corpus: Corpus, **changes: object) -> MidtrainConfig:
    quick = {"steps": 4, "export_hf": False, "validate_every": None, "checkpoint": {"every_steps": None}}
    return make_config(corpus, **(quick | changes))


def train(config: MidtrainConfig, ranks: Ranks, folder: Path, **kwargs: Any) -> RunFolder:
    run = RunFolder.prepare(folder, config)
    Midtraining(run, config, ranks, **kwargs).run()
    return run


def test_flops_of_packed_documents_count_attention_inside_each_segment() -> None:
    arch = tiny()
    whole = PackedBatch.from_sequences([np.zeros(100, np.int64)])
    parts = PackedBatch.from_sequences([np.zeros(25, np.int64)] * 4)
    assert batch_flops(arch, [whole]) == pytest.approx(100 * arch.flops_per_token(100))
    gap = batch_flops(arch, [whole]) - batch_flops(arch, [parts])
    # causal attention: 12 L heads d n^2 / 2
    assert gap == pytest.approx(6 * 4 * 8 * 16 * (100**2 - 4 * 25**2))


def test_mfu_is_the_flop_rate_over_the_peak_and_absent_without_one(single: Ranks) -> None:
    batches = [packed(0)]
    found = Throughput(tiny(), single, 2.0).of_step(batches, 0.5)
    assert found["tokens"] == 64
    assert found["tokens_per_s"] == 128
    assert found["mfu"] == pytest.approx(batch_flops(tiny(), batches) / 0.5 / 2e12)
    assert "mfu" not in Throughput(tiny(), single, None).of_step(batches, 0.5)


def test_losses_by_source_add_up_to_the_loss(single: Ranks, corpus: Corpus, tmp_path: Path) -> None:
    run = train(short(corpus, peak_tflops=1.0), single, tmp_path)
    data = TrainingData(short(corpus).data, global_batch=2, seed=0, vocab_size=VOCAB)
    assert data.data_sources == ["other", "train"]
    for line in run.read_metrics("midtrain"):
        weights = dict.fromkeys(data.data_sources, 0.0)
        for batch in data.step(line["step"] - 1):
            for i, name in enumerate(data.data_sources):
                weights[name] += float(batch.values["weight"][batch.values["source"] == i].sum())
        assert set(line["source_loss"]) == {name for name, w in weights.items() if w}
        total = sum(loss * weights[name] for name, loss in line["source_loss"].items())
        assert total / sum(weights.values()) == pytest.approx(line["loss"], rel=1e-5)
        assert sum(weights.values()) == line["trained_tokens"]
        assert line["mfu"] == pytest.approx(line["tflops_per_rank"])


def test_a_source_without_tokens_in_a_step_has_no_loss() -> None:
    batch = packed(0).with_values(source=torch.zeros(64))
    scores = TokenScores(-torch.ones(64), torch.zeros(64))
    loss = SourceLoss(["a", "b"])
    found = loss(scores, batch)
    assert loss.means({k: v.tolist() for k, v in found.metrics.items()}) == {"a": 1.0}


def test_what_is_read_ahead_is_what_would_be_read() -> None:
    calls: list[int] = []

    def read(step: int) -> list[PackedBatch]:
        calls.append(step)
        if step == 3:
            raise ValueError("damaged")
        return [packed(step)]

    reader = ReadAhead(read, steps=5)
    for step in (0, 1, 2):
        assert torch.equal(reader.step(step)[0].token_ids_T, packed(step).token_ids_T)
    reader.settle()
    assert calls == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="damaged"):
        reader.step(3)
    assert torch.equal(reader.step(4)[0].token_ids_T, packed(4).token_ids_T)
    reader.close()
    assert calls == [0, 1, 2, 3, 4]


def test_a_spike_of_the_loss_is_told_from_one_of_the_gradient() -> None:
    watch = AnomalyWatch(AnomalyConfig(action="skip", loss_spike_factor=2.0, window=6))
    assert all(watch.accept(1.0, 1.0) for _ in range(3))
    assert watch.accept(1.0, 50.0)
    assert not watch.accept(2.5, 1.0)
    assert watch.reason.startswith("the loss 2.5 is more than 2 times")
    assert list(watch.losses) == [1.0] * 4


def test_a_skipped_spike_names_its_sources_and_leaves_the_weights(
    single: Ranks, corpus: Corpus, tmp_path: Path
) -> None:
    config = short(corpus, anomaly={"action": "skip", "spike_factor": 20.0, "window": 6}, steps=8)
    run = RunFolder.prepare(tmp_path, config)
    midtraining = Midtraining(run, config, single)
    plain, weights = midtraining.loss, []

    def spiking(scores: TokenScores, batch: PackedBatch) -> LossSum:
        weights.append(midtraining.trainer.chunks[0].head_weight().detach().clone())
        found = plain(scores, batch)
        return replace(found, total=found.total * (1000.0 if len(weights) in (9, 10) else 1.0))

    spiking.means = plain.means  # type: ignore[attr-defined]
    midtraining.loss = spiking  # type: ignore[assignment]
    midtraining.run()
    lines = run.read_metrics("midtrain")
    assert [m["step"] for m in lines if not m["updated"]] == [5]
    [anomaly] = run.read_metrics("midtrain_anomaly")
    assert "the gradient norm" in anomaly["reason"]
    assert len(anomaly["batch"]) == 2
    assert {name for b in anomaly["batch"] for name in b["data_sources"]} <= {"train", "other"}
    # Two micro-batches a step: the ninth and eleventh call are the spike's and the next step's first.
    assert torch.equal(weights[8], weights[10])
    assert not torch.equal(weights[10], weights[12])


def test_chosen_steps_are_profiled(single: Ranks, corpus: Corpus, tmp_path: Path) -> None:
    train(short(corpus, profile=ProfileConfig(first_step=1, steps=2)), single, tmp_path)
    traces = sorted((tmp_path / "profile").iterdir())
    assert [t.name for t in traces] == ["rank0-step2.json", "rank0-step3.json"]
    names = {event.get("name") for event in json.loads(traces[0].read_text())["traceEvents"]}
    assert "aten::mm" in names


def test_epochs_become_steps(corpus: Corpus) -> None:
    config = short(corpus, steps=0, epochs=2.0, global_batch=3)
    data = TrainingData(config.data, global_batch=3, seed=0, vocab_size=VOCAB)
    bins = sum(s.num_bins for s in data.sources)
    resolved = with_steps(config)
    assert (resolved.steps, resolved.epochs) == (math.ceil(2 * bins / 3), None)
    assert with_steps(resolved) == resolved


def test_the_weights_are_evaluated_on_the_way_and_a_failure_does_not_end_the_run(
    single: Ranks, corpus: Corpus, tmp_path: Path
) -> None:
    seen: list[tuple[str, bool]] = []

    def evaluate(export: Path, folder: Path) -> dict[str, float]:
        seen.append((folder.parent.name, (export / "model.safetensors").is_file()))
        if len(seen) == 2:
            raise UsageError("the engine does not start")
        return {"coverage": 1.0}

    config = short(corpus, generation=GenerationConfig(every_steps=2, recipe=Path("eval.yaml")))
    run = train(config, single, tmp_path, evaluate=evaluate)
    assert seen == [("step-00000002", True), ("step-00000004", True)]
    first, second = run.read_metrics("midtrain_evaluation")
    assert (first["step"], first["coverage"]) == (2, 1.0)
    assert "does not start" in second["failed"]
    assert not (tmp_path / "evaluation" / "step-00000002" / "hf").exists()
    assert [m["step"] for m in run.read_metrics("midtrain")] == [1, 2, 3, 4]


def test_evaluation_needs_a_worker_that_knows_tasks(single: Ranks, corpus: Corpus, tmp_path: Path) -> None:
    config = short(corpus, generation=GenerationConfig(every_steps=2, recipe=Path("eval.yaml")))
    with pytest.raises(UsageError, match="knows no tasks"):
        Midtraining(RunFolder.prepare(tmp_path, config), config, single)


@pytest.mark.slow
def test_metrics_reach_wandb_without_a_network(single: Ranks, corpus: Corpus, tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    train(short(corpus, wandb=WandbConfig(project="p")), single, tmp_path)
    [file] = (tmp_path / "logs" / "wandb").glob("offline-run-*/*.wandb")
    # A process of W&B's own writes the file.
    deadline = time.monotonic() + 60
    names = (b"midtrain/loss", b"midtrain/source_loss/train", b"midtrain/tokens_per_s")
    while missing := [name for name in names if name not in file.read_bytes()]:
        assert time.monotonic() < deadline, missing
        time.sleep(0.1)


def test_a_run_reports_every_promised_number(
    single: Ranks, corpus: Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train(short(corpus), single, tmp_path)
    line = run.read_metrics("midtrain")[-1]
    promised = {"loss", "grad_norm", "lr", "tokens_per_s", "tflops_per_rank", "peak_memory_gib", "source_loss"}
    assert promised | {"bins", "epochs", "read_s", "step_s", "trained_tokens"} <= line.keys()
    assert "midtrain step 4/4: loss" in capsys.readouterr().out
    assert load(MidtrainConfig, run.config) == short(corpus)
