"""Tensors for a server on the same machine without a copy through a socket: the `tensor` transport to SGLang.

Runs on the rank that owns the rollout side. What travels by HTTP are handles, in torch's own form: names in shared
memory for CPU tensors, CUDA IPC handles for GPU ones (the GPU side has not run yet). Only written here, never read:
unpickling is the server's. The tensors must live until the server has answered. torch's default sharing by file
descriptor kills an SGLang server, so files are used while a bucket is packed; torch then keeps a small manager
process (torch_shm_manager) as long as this process and the server live.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.reduction import ForkingPickler

import torch.multiprocessing as mp
from torch import Tensor

from rl.rollout.base import Bucket


def as_handles(bucket: Bucket) -> tuple[str, list[Tensor]]:
    """(what SGLang's /update_weights_from_tensor takes, the tensors to keep until it has answered)."""
    # Sharing moves a CPU tensor's storage: a copy, or the model itself would move.
    own = [(name, tensor.detach().contiguous().clone()) for name, tensor in bucket]
    with _shared_by_files():
        payload = base64.b64encode(bytes(ForkingPickler.dumps(own))).decode()
    return payload, [tensor for _, tensor in own]


@contextmanager
def _shared_by_files() -> Iterator[None]:
    before = mp.get_sharing_strategy()
    mp.set_sharing_strategy("file_system")
    try:
        yield
    finally:
        mp.set_sharing_strategy(before)
