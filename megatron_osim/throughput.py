"""Tokens per second, FLOP rates and model FLOPs utilisation (MFU) of one step.

FLOPs are those that the model needs for the documents as they are packed: attention is counted inside each segment,
and recomputation is not counted. Runs in every rank; collective over data parallel ranks.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from megatron.core import parallel_state

from megatron_osim.architecture import ArchitectureConfig
from megatron_osim.batch import PackedBatch
from megatron_osim.runtime import Ranks

PEAK_BF16_TFLOPS = {"GB200": 2500.0, "B200": 2250.0, "H200": 989.0, "H100": 989.0, "A100": 312.0}
"""Dense peaks of the SXM parts, by a word of the device's name."""


def batch_flops(arch: ArchitectureConfig, batches: Sequence[PackedBatch]) -> float:
    """Training FLOPs of packed micro-batches."""
    lengths = [n for batch in batches for n in batch.segment_lengths]
    return arch.matmul_flops_per_token * sum(lengths) + sum(arch.attention_flops(n) for n in lengths)


def known_peak_tflops(*, precision: str, fp8: bool) -> float | None:
    """The device's dense peak in this precision; None where it is not in the table."""
    if not torch.cuda.is_available() or precision != "bf16":
        return None
    name = torch.cuda.get_device_name()
    found = next((peak for word, peak in PEAK_BF16_TFLOPS.items() if word in name), None)
    return found * 2 if found and fp8 else found


class Throughput:
    """Rates of a job. `peak_tflops`: None leaves MFU out."""

    def __init__(self, arch: ArchitectureConfig, ranks: Ranks, peak_tflops: float | None) -> None:
        self.arch, self.ranks, self.peak_tflops = arch, ranks, peak_tflops

    def of_step(self, batches: Sequence[PackedBatch], seconds: float) -> dict[str, float]:
        """`batches`: this replica's micro-batches; the same numbers on every rank."""
        work = [sum(b.num_tokens for b in batches), batch_flops(self.arch, batches)]
        packed = torch.tensor(work, dtype=torch.float64, device=self.ranks.device)
        dist.all_reduce(packed, group=parallel_state.get_data_parallel_group())
        tokens, flops = packed.tolist()
        tflops = flops / seconds / self.ranks.world_size / 1e12
        out = {"tokens": tokens, "tokens_per_s": tokens / seconds, "tflops_per_rank": tflops}
        return out if self.peak_tflops is None else {**out, "mfu": tflops / self.peak_tflops}
