"""MKL's vector functions, chosen by one thread before two can race for it.

torch 2.13 sends `cos`, `sin`, `exp` and their like on contiguous CPU tensors to MKL's vector library, one call per
intra-op thread. MKL 2024.2 chooses each function's kernel in its first call; when two threads make that call at once,
one of them may run a kernel of half the digits for its whole share, that once (pytorch issue 188792). In the first
forward pass of a process this turned the rotary embedding of half the tokens wrong by 1.5e-4 and log-probs by up to
9e-4. Without an error; the next pass was right.

Every process that computes on a CPU calls `choose_kernels` before its first parallel operation.
"""

from __future__ import annotations

import torch

FUNCTIONS = (
    "abs",
    "acos",
    "asin",
    "atan",
    "ceil",
    "cos",
    "cosh",
    "erf",
    "erfc",
    "erfinv",
    "exp",
    "exp2",
    "expm1",
    "floor",
    "lgamma",
    "log",
    "log10",
    "log1p",
    "log2",
    "round",
    "rsqrt",
    "sigmoid",
    "sin",
    "sinh",
    "sqrt",
    "tan",
    "tanh",
    "trunc",
)
"""Unary functions of torch that MKL computes, or may in another build."""


def choose_kernels() -> None:
    """Call every function once per precision on one number, which is one thread's work. Takes some 0.03 s."""
    for dtype in (torch.float32, torch.float64):
        one = torch.full((1,), 0.5, dtype=dtype)
        for name in FUNCTIONS:
            getattr(torch, name)(one)
