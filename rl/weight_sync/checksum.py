"""Checksums that prove that an engine and the trainer hold the same weights, bit for bit.

Runs on the rank that streams the weights out; costs one SHA-256 pass and the memory of one fused tensor at most.
SGLang's /weights_checker hashes each tensor of its own module tree: on CPU the first 8 bytes of SHA-256 over the raw
bytes, in hex. `ChecksumTap` computes the same from the HF tensors as they pass, after fusing and padding them as the
server's layers do:

* q, k and v projections are stacked (rows of q, then k, then v), so are gate and up; weights and biases alike;
* embedding and output matrices are padded with zero rows to a multiple of 64;
* everything else keeps its HF name.

Valid for dense decoders served by one CPU rank. On a GPU SGLang uses another hash (a Triton kernel), with tensor
parallelism it hashes shards: such engines have no `checksum_layout`, nothing is compared, and the proof that is left
is the RL loop's gate on the log-prob gap after each sync.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import torch

from rl.rollout.base import ChecksumLayout, NamedTensor

VOCAB_PADDING = 64
PADDED = ("embed_tokens.weight", "lm_head.weight")
FUSED = {
    "q_proj": ("qkv_proj", 0),
    "k_proj": ("qkv_proj", 1),
    "v_proj": ("qkv_proj", 2),
    "gate_proj": ("gate_up_proj", 0),
    "up_proj": ("gate_up_proj", 1),
}
PARTS = {"qkv_proj": 3, "gate_up_proj": 2}


def tensor_checksum(tensor: torch.Tensor) -> str:
    """First 8 bytes of SHA-256 over the tensor's bytes, hex."""
    return hashlib.sha256(_bytes(tensor)).hexdigest()[:16]


@dataclass
class ChecksumTap:
    """Passes a stream of HF tensors on unchanged and records the checksums an engine of `layout` must report."""

    layout: ChecksumLayout | None
    """None records nothing."""
    checksums: dict[str, str] = field(default_factory=dict)
    bytes_passed: int = 0
    _parts: dict[str, dict[int, torch.Tensor]] = field(default_factory=dict)

    def through(self, tensors: Iterable[NamedTensor]) -> Iterator[NamedTensor]:
        for name, tensor in tensors:
            self._record(name, tensor)
            self.bytes_passed += tensor.nbytes
            yield name, tensor
        if self._parts:
            raise ValueError(f"the stream ended before all parts of {min(self._parts)} had come")

    def _record(self, name: str, tensor: torch.Tensor) -> None:
        if self.layout is None:
            return
        if self.layout == "hf":
            self.checksums[name] = tensor_checksum(tensor)
            return
        module = name.split(".")[-2] if "." in name else ""
        if module in FUSED:
            fused, index = FUSED[module]
            whole = name.replace(module, fused)
            parts = self._parts.setdefault(whole, {})
            parts[index] = tensor
            if len(parts) == PARTS[fused]:
                self.checksums[whole] = _checksum_of([parts[i] for i in range(len(parts))])
                del self._parts[whole]
            return
        pieces = [tensor]
        if name.endswith(PADDED):
            missing_rows = -len(tensor) % VOCAB_PADDING
            pieces.append(tensor.new_zeros((missing_rows, *tensor.shape[1:])))
        self.checksums[name] = _checksum_of(pieces)


@dataclass(frozen=True)
class Comparison:
    """`differing` hold other bytes than the trainer's; `missing` and `extra` are names only one side has."""

    compared: int
    differing: tuple[str, ...]
    missing: tuple[str, ...]
    extra: tuple[str, ...]

    @property
    def equal(self) -> bool:
        return not (self.differing or self.missing or self.extra)

    def __str__(self) -> str:
        if self.equal:
            return f"{self.compared} tensors equal"
        kinds = (
            ("differ", self.differing),
            ("missing in the engine", self.missing),
            ("only in the engine", self.extra),
        )
        return "; ".join(f"{len(names)} {kind}, first {names[0]}" for kind, names in kinds if names)


def compare(expected: Mapping[str, str], actual: Mapping[str, str]) -> Comparison:
    """The trainer's checksums against an engine's."""
    both = expected.keys() & actual.keys()
    return Comparison(
        compared=len(both),
        differing=tuple(sorted(name for name in both if expected[name] != actual[name])),
        missing=tuple(sorted(expected.keys() - actual.keys())),
        extra=tuple(sorted(actual.keys() - expected.keys())),
    )


def _bytes(tensor: torch.Tensor) -> memoryview:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data


def _checksum_of(pieces: Iterable[torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(_bytes(piece))
    return digest.hexdigest()[:16]
