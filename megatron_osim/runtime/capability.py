"""What this machine can run. A GPU alone does not decide: Transformer Engine layers need both."""

from __future__ import annotations

import importlib
import importlib.util

import torch

from megatron_osim.layout import Capability


def detect_capability() -> Capability:
    """Look for CUDA, Transformer Engine and NVIDIA's apex (another project in the registry has apex's name)."""
    cuda = torch.cuda.is_available()
    return Capability(
        cuda=cuda,
        transformer_engine=cuda and _importable("transformer_engine.pytorch"),
        apex=cuda and _importable("apex.optimizers"),
    )


def _importable(module: str) -> bool:
    if importlib.util.find_spec(module.partition(".")[0]) is None:
        return False
    try:
        importlib.import_module(module)
    except (ImportError, OSError):  # a build for another CUDA or torch
        return False
    return True
