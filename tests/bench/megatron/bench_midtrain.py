"""Tokens per second of `osim midtrain` against a bare Megatron loop: same model, same bins, alternating in one
process.

The bare loop does forward, backward and step with Megatron's own GPTModel and cross-entropy and nothing else: its
batches are in memory before the clock starts. Ours reads, masks, checks, logs and polls as in a real run. Target: at
least 0.9 (issue 4).

    python -m tests.bench.megatron.bench_midtrain [ROUNDS]
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
from megatron.core.distributed import finalize_model_grads
from megatron.core.models.gpt.gpt_model import GPTModel
from megatron.core.pipeline_parallel import get_forward_backward_func
from megatron.core.utils import get_model_config

from common.run_folder import RunFolder
from megatron_osim.batch import PackedBatch
from megatron_osim.config import ArchitectureConfig, DataConfig, MidtrainConfig, OptimizerConfig, ParallelConfig
from megatron_osim.config import SourceConfig as Source
from megatron_osim.micro_batch import prepare
from megatron_osim.midtrain import Midtraining
from megatron_osim.runtime import initialize, shutdown
from megatron_osim.trainer import Trainer
from tests.megatron_osim.corpus import make_corpus

SEQUENCE_LENGTH, GLOBAL_BATCH, STEPS_PER_ROUND = 1024, 2, 3
ARCH = ArchitectureConfig(
    vocab_size=512,
    hidden_size=192,
    intermediate_size=512,
    num_hidden_layers=6,
    num_attention_heads=6,
    num_key_value_heads=2,
    head_dim=32,
    tie_word_embeddings=True,
)


def bare_step(trainer: Trainer, batches: list[PackedBatch]) -> None:
    """Megatron alone: stock output layer and cross-entropy, one optimizer step."""
    [model] = trainer.models
    get_model_config(model).finalize_model_grads_func = finalize_model_grads
    model.train()
    model.zero_grad_buffer()
    trainer.optimizer.zero_grad()
    data = iter(prepare(trainer, batches))

    def forward(_: object, chunk: torch.nn.Module) -> tuple:
        micro = next(data)
        batch = micro.batch
        losses = chunk(
            input_ids=batch.token_ids_T.unsqueeze(0),
            position_ids=batch.position_ids_T.unsqueeze(0),
            attention_mask=None,
            labels=batch.labels_T.unsqueeze(0),
            packed_seq_params=micro.packed_seq_params,
        )
        weight = batch.values["weight"]
        return losses, lambda x: ((x[0] * weight).sum(), weight.sum().int(), {})

    get_forward_backward_func()(
        forward_step_func=forward,
        data_iterator=data,
        model=model,
        num_microbatches=len(batches),
        seq_length=SEQUENCE_LENGTH,
        micro_batch_size=1,
        forward_only=False,
    )
    trainer.optimizer.step()


def measure(folder: Path, rounds: int) -> dict[str, float]:
    """Median tokens per second of both, and the ratio of each round's pair."""
    prefix = make_corpus(folder, sequence_length=SEQUENCE_LENGTH, rows=1000).train
    config = MidtrainConfig(
        architecture=ARCH,
        data=DataConfig(sources=(Source(name="train", prefixes=(prefix,)),), sequence_length=SEQUENCE_LENGTH),
        optimizer=OptimizerConfig(lr=1e-4),
        steps=10_000,
        global_batch=GLOBAL_BATCH,
    )
    run = RunFolder.prepare(folder / "run", config)
    ranks = initialize(ParallelConfig(), rendezvous=(folder / "rendezvous").as_uri())
    ours = Midtraining(run, config, ranks)
    bare = Midtraining(run, config, ranks).trainer
    type(bare.chunks[0])._postprocess = _choose(ours.trainer.chunks[0], type(bare.chunks[0])._postprocess)
    rates: dict[str, list[float]] = {"ours": [], "bare": []}
    for r in range(rounds + 1):
        steps = range(r * STEPS_PER_ROUND, (r + 1) * STEPS_PER_ROUND)
        batches = [ours.data.step(s) for s in steps]
        tokens = sum(b.num_tokens for step in batches for b in step)
        started = time.perf_counter()
        for step in steps:
            ours._train(step)
            ours.checkpointer.poll()
            ours.stop.seen_anywhere(ranks.device)
        middle = time.perf_counter()
        for step_batches in batches:
            bare_step(bare, step_batches)
        ended = time.perf_counter()
        if r > 0:  # the first round warms up
            rates["ours"].append(tokens / (middle - started))
            rates["bare"].append(tokens / (ended - middle))
    shutdown()
    ratios = [a / b for a, b in zip(rates["ours"], rates["bare"], strict=True)]
    return {
        "tokens_per_s": statistics.median(rates["ours"]),
        "bare_tokens_per_s": statistics.median(rates["bare"]),
        "ratio_median": statistics.median(ratios),
        "ratio_min": min(ratios),
        "ratio_max": max(ratios),
    }


def _choose(ours: torch.nn.Module, our_postprocess: object) -> object:
    """Our chunk keeps returning hidden states; the bare one gets Megatron's own output layer and loss."""

    def postprocess(self: torch.nn.Module, *args: object, **kwargs: object) -> torch.Tensor:
        chosen = our_postprocess if self is ours else GPTModel._postprocess
        return chosen(self, *args, **kwargs)  # type: ignore[operator]

    return postprocess


def main() -> None:
    """Print one JSON line."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 9
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps({k: round(v, 3) for k, v in measure(Path(folder), rounds).items()}))


if __name__ == "__main__":
    main()
