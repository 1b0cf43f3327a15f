"""Which parallel layouts are legal for a model. No torch import: `osim plan` and the trainer ask the same function.

Every violation is named at once, with its reason. Among them are settings that Megatron-Core 0.16.1 accepts and
then trains on wrong numbers; those are refused here and each has a test.
"""

from __future__ import annotations

from dataclasses import dataclass

from common.errors import ConfigError
from megatron_osim.architecture import VOCAB_PADDING, ArchitectureConfig
from megatron_osim.config import Fp8Config, ParallelConfig

FP8_MULTIPLE = 16
"""Dimensions of FP8 matrix products are multiples of this."""


@dataclass(frozen=True)
class Capability:
    """What this machine can run: decides the layer spec and which layouts are legal."""

    cuda: bool = False
    transformer_engine: bool = False
    apex: bool = False

    @property
    def te_layers(self) -> bool:
        """Transformer Engine layers are used (a GPU alone is not enough)."""
        return self.cuda and self.transformer_engine


def layout_violations(
    arch: ArchitectureConfig,
    parallel: ParallelConfig,
    *,
    world_size: int,
    capability: Capability,
    global_batch: int | None = None,
    fp8: Fp8Config | None = None,
) -> list[str]:
    """Everything that is wrong with this layout, each with its reason; empty = legal."""
    checks = (
        _sizes(parallel, world_size, global_batch),
        _model(arch, parallel),
        _experts(arch, parallel, world_size, capability),
        _pipeline(arch, parallel, world_size, capability, global_batch),
        _kernels(arch, parallel, capability, fp8),
    )
    return [text for group in checks for text in group]


def check_layout(
    arch: ArchitectureConfig,
    parallel: ParallelConfig,
    *,
    world_size: int,
    capability: Capability,
    global_batch: int | None = None,
    fp8: Fp8Config | None = None,
) -> None:
    """Raise one ConfigError with every violation."""
    found = layout_violations(
        arch, parallel, world_size=world_size, capability=capability, global_batch=global_batch, fp8=fp8
    )
    if found:
        raise ConfigError(found, where="parallel layout", fix="change `parallel`; `osim plan` lists legal layouts")


def _sizes(p: ParallelConfig, world_size: int, global_batch: int | None) -> list[str]:
    out = []
    if world_size % p.model_size:
        out.append(f"{world_size} ranks do not split into replicas of tensor*pipeline*context = {p.model_size}")
    elif global_batch is not None and global_batch % p.data(world_size):
        out.append(f"global_batch {global_batch} is not a multiple of {p.data(world_size)} replicas")
    elif p.data(world_size) * p.context % p.expert:
        replicas = p.data(world_size) * p.context
        out.append(
            f"expert = {p.expert} must divide the {replicas} ranks (data x context) that experts are spread over"
        )
    if p.sequence_parallel and p.tensor == 1:
        out.append("sequence_parallel needs tensor > 1: it splits the sequence over the tensor parallel ranks")
    return out


def _model(arch: ArchitectureConfig, p: ParallelConfig) -> list[str]:
    out = []
    for name, size in (
        ("num_attention_heads", arch.num_attention_heads),
        ("num_key_value_heads", arch.num_key_value_heads),
        ("intermediate_size", arch.intermediate_size),
        ("hidden_size", arch.hidden_size),
    ):
        if size % p.tensor:
            out.append(f"{name} {size} is not a multiple of tensor = {p.tensor}")
    if VOCAB_PADDING % p.tensor:
        out.append(f"tensor = {p.tensor} must divide {VOCAB_PADDING}, the padding of the vocabulary")
    return out


def _experts(arch: ArchitectureConfig, p: ParallelConfig, world_size: int, capability: Capability) -> list[str]:
    if arch.moe is None:
        return ["expert > 1 needs a model with experts"] if p.expert > 1 else []
    out = []
    if arch.moe.num_experts % p.expert:
        out.append(f"num_experts {arch.moe.num_experts} is not a multiple of expert = {p.expert}")
    if p.tensor > 1 and not p.sequence_parallel:
        out.append("experts with tensor > 1 need sequence_parallel: the dispatcher splits tokens over those ranks")
    if p.tensor > 1 and not capability.cuda:
        out.append(
            "experts with tensor > 1 need a GPU: their ranks gather different numbers of tokens, which gloo cannot do"
        )
    return out


def _pipeline(
    arch: ArchitectureConfig, p: ParallelConfig, world_size: int, capability: Capability, global_batch: int | None
) -> list[str]:
    out = []
    chunks = p.pipeline * (p.virtual_pipeline or 1)
    if arch.num_hidden_layers % chunks:
        out.append(f"{arch.num_hidden_layers} layers cannot be split into {chunks} equal pipeline chunks")
    if p.virtual_pipeline is None:
        if p.overlap_p2p_comm:
            out.append("overlap_p2p_comm needs virtual_pipeline: plain 1F1B does not overlap")
        return out
    if p.pipeline == 1:
        out.append("virtual_pipeline needs pipeline > 1")
    if p.pipeline == 2 and p.batch_p2p_comm:
        out.append(
            "virtual_pipeline with pipeline = 2 and batch_p2p_comm trains on wrong numbers without an error: both "
            "neighbours are the same rank and batched messages carry no tags; set batch_p2p_comm = false"
        )
    if p.overlap_p2p_comm and p.batch_p2p_comm:
        out.append("overlap_p2p_comm and batch_p2p_comm exclude each other")
    if p.overlap_p2p_comm and p.deallocate_pipeline_outputs and not capability.cuda:
        out.append(
            "overlap_p2p_comm with deallocate_pipeline_outputs trains on wrong numbers over gloo without an error: "
            "outputs are freed while they are being sent; set deallocate_pipeline_outputs = false"
        )
    if global_batch is not None and world_size % p.model_size == 0:
        micro = global_batch // p.data(world_size)
        if micro % p.pipeline:
            out.append(f"virtual_pipeline needs a multiple of {p.pipeline} micro-batches per replica, not {micro}")
    return out


def _kernels(arch: ArchitectureConfig, p: ParallelConfig, capability: Capability, fp8: Fp8Config | None) -> list[str]:
    out = []
    if p.context_comm != "p2p" and not capability.te_layers:
        out.append(
            f"context_comm = {p.context_comm} is Transformer Engine's, which needs a GPU; the local attention always "
            "gathers keys and values"
        )
    if p.context_comm == "a2a" and (arch.num_key_value_heads // p.tensor) % p.context:
        out.append(
            f"context_comm = a2a splits heads: {arch.num_key_value_heads} key-value heads over tensor = {p.tensor} "
            f"do not split over context = {p.context}"
        )
    if fp8 is not None and not capability.te_layers:
        out.append("fp8 needs Transformer Engine on a GPU: no other layers multiply in FP8")
    if fp8 is not None:
        for name, size in (("hidden_size", arch.hidden_size), ("intermediate_size", arch.intermediate_size)):
            if size // p.tensor % FP8_MULTIPLE:
                out.append(f"fp8 needs {name} / tensor to be a multiple of {FP8_MULTIPLE}, not {size // p.tensor}")
    return out
