"""The model of this rank with its gradient buffers and optimizer: what a training step works on.

Runs in every rank. Megatron's DistributedDataParallel sums gradients (in fp32) over replicas; AdamW keeps fp32
master weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from megatron.core.distributed import DistributedDataParallel, DistributedDataParallelConfig
from megatron.core.optimizer import OptimizerConfig as MegatronOptimizerConfig
from megatron.core.optimizer import get_megatron_optimizer
from megatron.core.optimizer.clip_grads import clip_grad_by_total_norm_fp32
from megatron.core.tensor_parallel.layers import set_tensor_model_parallel_attributes
from megatron.core.utils import get_model_config

from megatron_osim.config import ArchitectureConfig, Fp8Config, OptimizerConfig, ParallelConfig
from megatron_osim.convert.mapping import Replicated, Row, rule_for
from megatron_osim.model import DTYPES, DecoderModel, Precision
from megatron_osim.runtime import Ranks


@dataclass(frozen=True)
class Trainer:
    """Built by `build_trainer`."""

    arch: ArchitectureConfig
    parallel: ParallelConfig
    precision: Precision
    ranks: Ranks
    chunks: list[DecoderModel]
    """This rank's bare model chunks (conversion, export, checkpoints)."""
    models: list[DistributedDataParallel]
    """The same chunks with gradient buffers (training)."""
    optimizer: Any
    """Megatron's optimizer (a ChainedOptimizer)."""
    clip_grad: float
    fp8: Fp8Config | None = None

    def gradient_norm(self) -> float:
        """Global norm of the summed gradients; call once, after the backward pass."""
        self.optimizer.prepare_grads()
        return float(self.optimizer.get_grad_norm())

    def apply_gradients(self, lr: float, grad_norm: float) -> None:
        """Clip and step. The gradients must be those of which `gradient_norm` was just taken."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group.get("lr_mult", 1.0)
        if self.clip_grad > 0:
            for part in getattr(self.optimizer, "chained_optimizers", [self.optimizer]):
                clip_grad_by_total_norm_fp32(part.get_parameters(), self.clip_grad, grad_norm)
        self.optimizer.step_with_ready_grads()


def build_trainer(
    chunks: list[DecoderModel],
    arch: ArchitectureConfig,
    parallel: ParallelConfig,
    optimizer: OptimizerConfig,
    ranks: Ranks,
    *,
    precision: Precision = "fp32",
    fp8: Fp8Config | None = None,
    gloo_groups: bool = True,
) -> Trainer:
    """Wrap chunks that already hold their weights (the optimizer's master weights are copies of them).

    gloo_groups: False where `initialize_model_parallel` made none (footprint.py); checkpoints need them.
    """
    for chunk in chunks:
        _mark_tensor_parallel(chunk, arch)
    config = get_model_config(chunks[0])
    ddp_config = DistributedDataParallelConfig(
        grad_reduce_in_fp32=True,
        overlap_grad_reduce=parallel.overlap_grad_reduce,
        use_distributed_optimizer=parallel.distributed_optimizer,
    )
    # Only the first chunk's buckets may be overlapped: later chunks' gradients arrive out of order.
    models = [
        DistributedDataParallel(config, ddp_config, chunk, disable_bucketing=i > 0) for i, chunk in enumerate(chunks)
    ]
    if parallel.overlap_grad_reduce:
        config.no_sync_func = [m.no_sync for m in models] if len(models) > 1 else models[0].no_sync
    megatron_config = MegatronOptimizerConfig(
        optimizer="adam",
        lr=optimizer.lr,
        min_lr=optimizer.min_lr,
        weight_decay=optimizer.weight_decay,
        adam_beta1=optimizer.betas[0],
        adam_beta2=optimizer.betas[1],
        adam_eps=optimizer.eps,
        clip_grad=optimizer.clip_grad,
        bf16=precision == "bf16",
        params_dtype=DTYPES[precision],
        use_distributed_optimizer=parallel.distributed_optimizer,
    )
    built = get_megatron_optimizer(megatron_config, models, use_gloo_process_groups=gloo_groups)
    config.grad_scale_func = built.scale_loss if torch.is_tensor(built.get_loss_scale()) else None
    return Trainer(arch, parallel, precision, ranks, chunks, models, built, optimizer.clip_grad, fp8)


def _mark_tensor_parallel(chunk: DecoderModel, arch: ArchitectureConfig) -> None:
    """Mark split parameters. Megatron does so only while it draws weights; unmarked ones are counted on one tensor
    rank only, and the gradient norm (and with it clipping) is wrong without an error."""
    for name, parameter in chunk.named_parameters():
        if hasattr(parameter, "tensor_model_parallel"):
            continue
        rule = rule_for(arch, name)
        if not isinstance(rule, Replicated):
            set_tensor_model_parallel_attributes(parameter, True, 1 if isinstance(rule, Row) else 0, 1)
