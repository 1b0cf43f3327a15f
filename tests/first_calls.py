"""Watches how large the first call of every function is that MKL computes."""

from __future__ import annotations

from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

from megatron_osim.vector_math import FUNCTIONS


class FirstCalls(TorchDispatchMode):
    """`elements["cos float32"]`: numbers in the first such call of this thread inside the block."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: dict[str, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__.rstrip("_")
        if name in FUNCTIONS and args[0].is_floating_point():
            self.elements.setdefault(f"{name} {str(args[0].dtype).removeprefix('torch.')}", args[0].numel())
        return func(*args, **(kwargs or {}))
