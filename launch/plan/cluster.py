"""What a cluster offers, as far as planning needs it."""

from __future__ import annotations

from pydantic import Field

from common.config import Config

GIB = 2**30


class ClusterConfig(Config):
    """Homogeneous nodes of GPUs. The defaults are an H100 SXM with 80 GB."""

    nodes: int = Field(default=1, ge=1)
    gpus_per_node: int = Field(default=8, ge=1)
    gpu_memory_gib: float = Field(default=79.0, gt=0)
    """What torch sees of the card."""
    margin_gib: float = Field(default=8.0, ge=0)
    """CUDA context, NCCL buffers, workspaces, fragmentation. A guess, not a measurement."""
    peak_tflops: float = Field(default=989.0, gt=0)
    """Dense bf16 matmul peak of one GPU."""
    utilisation: float = Field(default=0.40, gt=0, le=1)
    """Model FLOPs utilisation to expect; what well-tuned Megatron runs of 8B dense models reach."""
    checkpoint_gib_per_s: float = Field(default=5.0, gt=0)
    """Write bandwidth of the shared file system, all nodes together."""

    @property
    def world_size(self) -> int:
        return self.nodes * self.gpus_per_node
