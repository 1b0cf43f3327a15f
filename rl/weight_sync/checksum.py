"""Checksums that prove that an engine and the trainer hold the same weights.

SGLang's /weights_checker hashes each tensor of its own module tree: on CPU the first 8 bytes of SHA-256 over the raw
bytes, in hex. `tensor_checksum` is that function; `expected_checksums` applies it to a stream of HF tensors after
fusing and padding them as the engine does, so equality is bit for bit and needs one pass and one layer's memory.
"""

from __future__ import annotations

import hashlib

import torch


def tensor_checksum(tensor: torch.Tensor) -> str:
    """First 8 bytes of SHA-256 over the tensor's bytes, hex."""
    data = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return hashlib.sha256(data.data).hexdigest()[:16]
