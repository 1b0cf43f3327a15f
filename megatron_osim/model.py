"""Builds this rank's part of a model: a list of chunks (one, or one per virtual pipeline stage).

Layers are Transformer Engine's where it can run, otherwise Megatron's local ones with the norm and the attention of
megatron_osim/layers.py. Weights are left unset: `convert.load_hf` or `convert.load_random` fills them, the same for
every layout.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import torch
from megatron.core import parallel_state
from megatron.core.models.gpt.gpt_layer_specs import (
    get_gpt_layer_local_spec,
    get_gpt_layer_with_transformer_engine_spec,
)
from megatron.core.models.gpt.gpt_model import GPTModel
from megatron.core.transformer.moe import moe_utils
from megatron.core.transformer.spec_utils import ModuleSpec
from megatron.core.transformer.transformer_block import TransformerBlockSubmodules, get_num_layers_to_build
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor

from megatron_osim.config import ArchitectureConfig, Fp8Config, ParallelConfig
from megatron_osim.layers import PackedAttention, RMSNorm
from megatron_osim.layout import Capability
from megatron_osim.runtime.capability import detect_capability

Precision = Literal["fp32", "bf16"]
DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}


class DecoderModel(GPTModel):
    """GPTModel whose last stage returns hidden states [T, 1, hidden]; losses.py applies the output layer in
    chunks."""

    def _postprocess(self, hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:
        return hidden_states

    def head_weight(self) -> Tensor:
        """This rank's rows of the output matrix [padded_vocab / tp, hidden]; the embedding's when tied."""
        if self.share_embeddings_and_output_weights:
            return self.shared_embedding_or_output_weight()
        return self.output_layer.weight


def build_model(
    arch: ArchitectureConfig,
    parallel: ParallelConfig,
    *,
    precision: Precision = "fp32",
    fp8: Fp8Config | None = None,
    capability: Capability | None = None,
) -> list[DecoderModel]:
    """This rank's chunks, on its device, without weights. Process groups must exist (`runtime.initialize`).

    `capability` chooses the layers; None = this machine's.
    """
    capability = capability or detect_capability()
    if precision == "fp32":
        # Transformer Engine has no packed attention in fp32.
        capability = replace(capability, transformer_engine=False)
    config = transformer_config(arch, parallel, precision=precision, fp8=fp8, capability=capability)
    stages = range(parallel.virtual_pipeline) if parallel.virtual_pipeline else (None,)
    chunks = [_build_chunk(arch, config, stage, capability) for stage in stages]
    for chunk in chunks:
        if capability.cuda:
            chunk.cuda(torch.cuda.current_device())
        if precision == "bf16":
            chunk.bfloat16()
    return chunks


def _build_chunk(
    arch: ArchitectureConfig, config: TransformerConfig, stage: int | None, capability: Capability
) -> DecoderModel:
    return DecoderModel(
        config,
        block_spec(arch, config, stage, capability),
        vocab_size=arch.padded_vocab_size,
        max_sequence_length=arch.max_position_embeddings,
        pre_process=parallel_state.is_pipeline_first_stage(ignore_virtual=False, vp_stage=stage),
        post_process=parallel_state.is_pipeline_last_stage(ignore_virtual=False, vp_stage=stage),
        share_embeddings_and_output_weights=arch.tie_word_embeddings,
        position_embedding_type="rope",
        rotary_base=arch.rope_theta,
        rope_scaling=arch.rope_scaling is not None,
        rope_scaling_factor=arch.rope_scaling.factor if arch.rope_scaling else 1.0,
        vp_stage=stage,
    )


def transformer_config(
    arch: ArchitectureConfig,
    parallel: ParallelConfig,
    *,
    precision: Precision,
    capability: Capability,
    fp8: Fp8Config | None = None,
) -> TransformerConfig:
    """Megatron's configuration of this architecture and layout; fusions only where their kernels exist."""
    te = capability.te_layers
    return TransformerConfig(
        num_layers=arch.num_hidden_layers,
        hidden_size=arch.hidden_size,
        ffn_hidden_size=arch.intermediate_size,
        num_attention_heads=arch.num_attention_heads,
        num_query_groups=arch.num_key_value_heads,
        kv_channels=arch.head_dim,
        normalization="RMSNorm",
        layernorm_epsilon=arch.rms_norm_eps,
        qk_layernorm=arch.qk_norm,
        add_bias_linear=False,
        add_qkv_bias=arch.qkv_bias,
        gated_linear_unit=True,
        activation_func=torch.nn.functional.silu,
        hidden_dropout=0.0,
        attention_dropout=0.0,
        params_dtype=DTYPES[precision],
        pipeline_dtype=DTYPES[precision],
        bf16=precision == "bf16",
        tensor_model_parallel_size=parallel.tensor,
        pipeline_model_parallel_size=parallel.pipeline,
        virtual_pipeline_model_parallel_size=parallel.virtual_pipeline,
        context_parallel_size=parallel.context,
        cp_comm_type=parallel.context_comm if parallel.context > 1 else None,
        expert_model_parallel_size=parallel.expert,
        sequence_parallel=parallel.sequence_parallel,
        batch_p2p_comm=parallel.batch_p2p_comm,
        overlap_p2p_comm=parallel.overlap_p2p_comm,
        deallocate_pipeline_outputs=parallel.deallocate_pipeline_outputs,
        calculate_per_token_loss=True,
        # Weights come from a checkpoint or from convert.load_random, never from Megatron's layout-dependent draws.
        perform_initialization=False,
        use_cpu_initialization=not capability.cuda,
        gradient_accumulation_fusion=capability.apex,
        masked_softmax_fusion=False,
        bias_dropout_fusion=te,
        bias_activation_fusion=te,
        apply_rope_fusion=te,
        persist_layer_norm=False,
        **_recompute(parallel),
        **_fp8(fp8),
        **_experts(arch, capability),
    )


def _recompute(parallel: ParallelConfig) -> dict[str, Any]:
    if parallel.recompute == "none":
        return {}
    if parallel.recompute == "selective":
        return {"recompute_granularity": "selective", "recompute_modules": ["core_attn"]}
    return {"recompute_granularity": "full", "recompute_method": "uniform", "recompute_num_layers": 1}


def _fp8(fp8: Fp8Config | None) -> dict[str, Any]:
    """Parameters stay in bf16: conversion, export and checkpoints see ordinary tensors."""
    return {} if fp8 is None else {"fp8": fp8.format, "fp8_recipe": fp8.recipe, "fp8_param": False}


def _experts(arch: ArchitectureConfig, capability: Capability) -> dict[str, Any]:
    if arch.moe is None:
        return {}
    # The router asks whether this kernel is there by a name that is only defined where it is.
    vars(moe_utils).setdefault("te_general_gemm", None)
    return {
        "num_moe_experts": arch.moe.num_experts,
        "moe_router_topk": arch.moe.num_experts_per_tok,
        "moe_ffn_hidden_size": arch.moe.moe_intermediate_size,
        "moe_router_score_function": "softmax",
        # Qwen3: softmax over all experts, then (norm_topk_prob) over the chosen ones = softmax after top-k.
        "moe_router_pre_softmax": not arch.moe.norm_topk_prob,
        "moe_router_load_balancing_type": "aux_loss" if arch.moe.router_aux_loss_coef else "none",
        "moe_aux_loss_coeff": arch.moe.router_aux_loss_coef,
        "moe_token_dispatcher_type": "alltoall",
        "moe_grouped_gemm": capability.te_layers,
        "moe_router_dtype": "fp32",
    }


def block_spec(
    arch: ArchitectureConfig, config: TransformerConfig, stage: int | None, capability: Capability
) -> TransformerBlockSubmodules | ModuleSpec:
    """Layer specs of one chunk. The final norm belongs to the block, not to a layer."""
    experts = arch.moe.num_experts if arch.moe else None
    if capability.te_layers:
        return get_gpt_layer_with_transformer_engine_spec(
            num_experts=experts, moe_grouped_gemm=experts is not None, qk_layernorm=arch.qk_norm
        )
    layer = get_gpt_layer_local_spec(num_experts=experts, qk_layernorm=arch.qk_norm, normalization="RMSNorm")
    layer.submodules.input_layernorm = RMSNorm
    layer.submodules.pre_mlp_layernorm = RMSNorm
    attention = layer.submodules.self_attention.submodules
    attention.core_attention = PackedAttention
    if arch.qk_norm:
        attention.q_layernorm = attention.k_layernorm = RMSNorm
    count = get_num_layers_to_build(config, vp_stage=stage)
    return TransformerBlockSubmodules(layer_specs=[layer] * count, layer_norm=RMSNorm)
