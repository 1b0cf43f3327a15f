"""Corrections for torch's AdamW inside Megatron's distributed optimizer (used wherever Transformer Engine and apex
are absent).

Megatron-Core 0.16.1 was written for their FusedAdam, which keeps one step count per group; torch's AdamW keeps a
step tensor per parameter. Uncorrected, loading a checkpoint fails twice, and then succeeds wrongly: all parameters
share one step tensor, AdamW advances it once per parameter, and bias correction is off from the second step after a
resume on, without an error.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from megatron.core.optimizer.distrib_optimizer import DistributedOptimizer
from torch import Tensor


def torch_adamw_parts(optimizer: Any) -> list[Any]:
    """The Megatron optimizers of a chain whose inner optimizer is torch's Adam or AdamW."""
    parts = getattr(optimizer, "chained_optimizers", [optimizer])
    return [p for p in parts if isinstance(p.optimizer, (torch.optim.Adam, torch.optim.AdamW))]


def prepare_for_checkpoint(optimizer: Any) -> None:
    """Make state_dict and load_state_dict work: allocate the state that a fresh AdamW lacks, and pass `step`
    through."""
    for part in torch_adamw_parts(optimizer):
        for group in part.optimizer.param_groups:
            for p in group["params"]:
                if not part.optimizer.state[p]:
                    part.optimizer.state[p].update(
                        step=torch.zeros(()), exp_avg=torch.zeros_like(p.data), exp_avg_sq=torch.zeros_like(p.data)
                    )
        if isinstance(part, DistributedOptimizer):
            part._set_main_param_and_optimizer_states = partial(_set_states, part)


def separate_steps(optimizer: Any) -> None:
    """Give every parameter its own step tensor again, after a load."""
    for part in torch_adamw_parts(optimizer):
        for state in part.optimizer.state.values():
            state["step"] = state["step"].clone()


def _set_states(part: DistributedOptimizer, model_param: Tensor, tensors: dict[str, Tensor]) -> None:
    """Megatron copies every key of the state, but its loaders leave `step` out of `tensors`."""
    group, order = part.model_param_group_index_map[model_param]
    state = part.optimizer.state[part.optimizer.param_groups[group]["params"][order]]
    DistributedOptimizer._set_main_param_and_optimizer_states(part, model_param, {"step": state["step"], **tensors})
