"""Cut a batch of sequences into micro-batches under a token budget, balanced over data-parallel ranks.

Pure and deterministic: every rank computes the same plan from the same lengths. Invariants (tests/rl):
* every sample is in exactly one micro-batch;
* all ranks run the same number of micro-batches, a multiple of `multiple_of` (collectives would hang otherwise);
* a micro-batch exceeds the budget only when it holds a single sample that does;
* with fewer samples than ranks some micro-batches are empty: the actor runs those on a dummy that trains nothing.

Longest sample first, each to the lightest micro-batch; more micro-batches until all fit; then the heaviest
micro-batches to the lightest ranks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from common.seeds import derive_rng
from rl.samples import TrainSample

Plan = list[list[list[int]]]
"""[rank][micro-batch][sample index]"""


def plan_micro_batches(lengths: Sequence[int], *, ranks: int, max_tokens: int, multiple_of: int = 1) -> Plan:
    """Indices of samples per rank and micro-batch."""
    unit = ranks * multiple_of
    count = max(1, math.ceil(sum(lengths) / max_tokens))
    while True:
        count = math.ceil(count / unit) * unit
        bins = _lightest_first(lengths, count)
        if all(len(b) == 1 or _load(b, lengths) <= max_tokens for b in bins if b):
            return _deal(bins, lengths, ranks)
        count += 1


def _load(indices: Sequence[int], lengths: Sequence[int]) -> int:
    return sum(lengths[i] for i in indices)


def _lightest_first(lengths: Sequence[int], count: int) -> list[list[int]]:
    bins: list[list[int]] = [[] for _ in range(count)]
    loads = [0] * count
    for i in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        lightest = min(range(count), key=lambda b: (loads[b], b))
        bins[lightest].append(i)
        loads[lightest] += lengths[i]
    return bins


def _deal(bins: list[list[int]], lengths: Sequence[int], ranks: int) -> Plan:
    """One bin to every rank per round: the heaviest of the round to the rank with least so far."""
    ordered = sorted(bins, key=lambda b: (-_load(b, lengths), b))
    plan: Plan = [[] for _ in range(ranks)]
    loads = [0] * ranks
    for start in range(0, len(ordered), ranks):
        by_load = sorted(range(ranks), key=lambda r: (loads[r], r))
        for rank, indices in zip(by_load, ordered[start : start + ranks], strict=True):
            plan[rank].append(sorted(indices))
            loads[rank] += _load(indices, lengths)
    return plan


def mini_batches(samples: Sequence[TrainSample], count: int, *, seed: int, step: int) -> list[list[TrainSample]]:
    """At most `count` parts for as many optimizer steps, whole prompts together, drawn by (seed, step)."""
    prompts = sorted({s.prompt_id for s in samples})
    derive_rng(seed, "mini_batches", step).shuffle(prompts)
    part = {prompt: i * min(count, len(prompts)) // len(prompts) for i, prompt in enumerate(prompts)}
    parts: list[list[TrainSample]] = [[] for _ in range(min(count, len(prompts)))]
    for sample in samples:
        parts[part[sample.prompt_id]].append(sample)
    return parts
