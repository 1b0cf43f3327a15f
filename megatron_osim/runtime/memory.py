"""How much memory this rank has used at most."""

from __future__ import annotations

import resource

import torch

GIB = 1 << 30


def peak_memory_gib() -> float:
    """Peak of the GPU's allocator, or of the process without a GPU."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / GIB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB
