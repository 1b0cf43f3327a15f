"""Training speed against the machine's own matrix multiplication rate, measured in the same run.

For every model and packed length: tokens/s, TFLOP/s, MFU against the measured ceiling and against the published peak,
peak memory; with one document per bin and with conversations of 467 tokens on average. Then Transformer Engine
against the local layers, FP8, and the memory of the chunked loss. One GPU, random weights. Target on an H200: 45 % of
the measured rate, bf16, 16k packed, 1.7B or larger (issue 4).

    osim bench train
    python -m tests.bench.megatron.bench_train --models 1.7b --lengths 16384

Without a GPU a tiny model runs through the same code; its figures say nothing about a GPU.
"""

from __future__ import annotations

import argparse
import gc
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

from common.config import load
from megatron_osim.batch import PackedBatch
from megatron_osim.config import ArchitectureConfig, Fp8Config, OptimizerConfig, ParallelConfig
from megatron_osim.convert import load_random
from megatron_osim.layout import Capability
from megatron_osim.losses import token_scores
from megatron_osim.model import Precision, build_model
from megatron_osim.runtime import Ranks, detect_capability, initialize, shutdown
from megatron_osim.throughput import batch_flops, known_peak_tflops
from megatron_osim.train_step import token_mean_loss, train_step
from megatron_osim.trainer import Trainer, build_trainer

ARCHITECTURES = Path(__file__).resolve().parents[3] / "launch" / "recipes" / "architectures"
MEAN_CONVERSATION = 467
WARMUP, MEASURED = 3, 5
TINY = ArchitectureConfig(
    vocab_size=1024,
    hidden_size=256,
    intermediate_size=768,
    num_hidden_layers=4,
    num_attention_heads=8,
    num_key_value_heads=4,
    head_dim=32,
)
GIB = 1 << 30


def main() -> None:
    """One JSON line per figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    gpu = torch.cuda.is_available()
    parser.add_argument("--models", default="0.6b,1.7b,4b" if gpu else "tiny")
    parser.add_argument("--lengths", default="8192,16384,24576" if gpu else "512,1024")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        ranks = initialize(ParallelConfig(), rendezvous=(Path(folder) / "rendezvous").as_uri())
        try:
            for row in rows(ranks, options.models.split(","), [int(n) for n in options.lengths.split(",")]):
                print(json.dumps({k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()}), flush=True)
        finally:
            shutdown()


def rows(ranks: Ranks, models: list[str], lengths: list[int]) -> Iterator[dict]:
    """Every figure, in order."""
    gpu = ranks.capability.cuda
    precision: Precision = "bf16" if gpu else "fp32"
    ceiling = matmul_tflops(ranks.device, precision)
    device = torch.cuda.get_device_name() if gpu else "CPU (says nothing about a GPU)"
    capability = detect_capability()
    yield {"device": device, "matmul_tflops": ceiling, "transformer_engine": capability.te_layers}
    for model in models:
        arch = TINY if model == "tiny" else load(ArchitectureConfig, ARCHITECTURES / f"qwen3-{model}.yaml")
        for length in lengths:
            for documents in ("one document", "conversations"):
                batch = make_bin(arch, length, documents)
                yield {"model": model, "documents": documents, **speed(ranks, arch, batch, precision, ceiling)}
    first = TINY if models[0] == "tiny" else load(ArchitectureConfig, ARCHITECTURES / f"qwen3-{models[0]}.yaml")
    batch = make_bin(first, lengths[0], "conversations")
    if capability.te_layers:
        local = speed(ranks, first, batch, precision, ceiling, capability=Capability(cuda=True))
        yield {"model": models[0], "layers": "local", **local}
        for recipe in ("tensorwise", "blockwise", "delayed"):
            fp8 = Fp8Config(recipe=recipe)  # type: ignore[arg-type]
            yield {"model": models[0], "fp8": recipe, **speed(ranks, first, batch, precision, ceiling, fp8=fp8)}
    if gpu:
        yield loss_memory(first, lengths[-1])


def make_bin(arch: ArchitectureConfig, length: int, documents: str) -> PackedBatch:
    """One packed bin of exactly `length` tokens, all of them trained."""
    rng = np.random.default_rng(0)
    sizes = [length]
    if documents == "conversations":
        drawn = np.maximum(8, rng.lognormal(np.log(MEAN_CONVERSATION) - 0.32, 0.8, length // 8)).astype(int)
        cut = int(np.searchsorted(np.cumsum(drawn), length))
        sizes = [*drawn[:cut].tolist(), length - int(drawn[:cut].sum())]
        sizes = [n for n in sizes if n > 0]
    ids = [rng.integers(0, arch.vocab_size, n) for n in sizes]
    return PackedBatch.from_sequences(ids, {"weight": [np.ones(n, np.float32) for n in sizes]})


def speed(
    ranks: Ranks,
    arch: ArchitectureConfig,
    batch: PackedBatch,
    precision: Precision,
    ceiling: float,
    *,
    fp8: Fp8Config | None = None,
    capability: Capability | None = None,
) -> dict:
    """Without recomputation if that fits, else with it."""
    for recompute in ("none", "full"):
        try:
            found = _speed(ranks, arch, batch, precision, recompute, fp8, capability)
        except torch.OutOfMemoryError:
            found = None
        gc.collect()
        if ranks.capability.cuda:
            torch.cuda.empty_cache()
        if found is not None:
            peak = known_peak_tflops(precision=precision, fp8=fp8 is not None)
            published = {"mfu_published_peak": found["tflops"] / peak} if peak else {}
            return {"tokens": batch.num_tokens, **found, "mfu_measured": found["tflops"] / ceiling, **published}
    return {"tokens": batch.num_tokens, "failed": "out of memory"}


def _speed(
    ranks: Ranks,
    arch: ArchitectureConfig,
    batch: PackedBatch,
    precision: Precision,
    recompute: str,
    fp8: Fp8Config | None,
    capability: Capability | None,
) -> dict:
    parallel = ParallelConfig.model_validate({"recompute": recompute})
    chunks = build_model(arch, parallel, precision=precision, fp8=fp8, capability=capability)
    load_random(chunks, arch, seed=0)
    trainer = build_trainer(chunks, arch, parallel, OptimizerConfig(), ranks, precision=precision, fp8=fp8)
    if ranks.capability.cuda:
        torch.cuda.reset_peak_memory_stats()
    seconds = timed(lambda: _step(trainer, batch), ranks.device, WARMUP, MEASURED)
    return {
        "recompute": recompute,
        "tokens_per_s": batch.num_tokens / seconds,
        "tflops": batch_flops(arch, [batch]) / seconds / 1e12,
        "peak_memory_gib": torch.cuda.max_memory_allocated() / GIB if ranks.capability.cuda else 0.0,
    }


def _step(trainer: Trainer, batch: PackedBatch) -> None:
    train_step(trainer, [batch], token_mean_loss, lr=1e-6)


def matmul_tflops(device: torch.device, precision: Precision) -> float:
    """The best rate of one large square product in the trained precision."""
    n = 8192 if device.type == "cuda" else 1024
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
    best = min(timed(lambda: a @ b, device, 3, 10) for _ in range(3))
    return 2 * n**3 / best / 1e12


def timed(work: Callable[[], object], device: torch.device, warmup: int, repeats: int) -> float:
    """Seconds of one call, mean over `repeats`."""

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize()

    for _ in range(warmup):
        work()
    wait()
    started = time.perf_counter()
    for _ in range(repeats):
        work()
    wait()
    return (time.perf_counter() - started) / repeats


def loss_memory(arch: ArchitectureConfig, tokens: int) -> dict:
    """Peak memory of output layer and loss, forward and backward, beside what full fp32 logits alone would take."""
    hidden = torch.randn(tokens, 1, arch.hidden_size, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    size = arch.padded_vocab_size
    weight = torch.randn(size, arch.hidden_size, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    labels = torch.randint(0, arch.vocab_size, (tokens,), device="cuda")
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    token_scores(hidden, weight, labels, vocab_size=arch.vocab_size).logprobs_T.sum().backward()
    peak = (torch.cuda.max_memory_allocated() - before) / GIB
    return {"loss_tokens": tokens, "loss_peak_gib": peak, "full_fp32_logits_gib": tokens * size * 4 / GIB}


if __name__ == "__main__":
    main()
