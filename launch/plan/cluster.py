"""What a cluster offers, as far as planning needs it."""

from __future__ import annotations

from pydantic import Field

from common.config import Config
from launch.submit.config import SlurmConfig, time_s

GIB = 2**30


class ClusterConfig(Config):
    """Homogeneous nodes of GPUs. The defaults are an H100 SXM with 80 GB.

    What is called a guess was never measured by us: replace it with what `osim plan --measured RUN` shows.
    """

    nodes: int = Field(default=1, ge=1)
    """Nodes of the cluster."""
    gpus_per_node: int = Field(default=8, ge=1)
    """GPUs of each."""
    gpu_memory_gib: float = Field(default=79.0, gt=0)
    """What torch sees of the card."""
    margin_gib: float = Field(default=8.0, ge=0)
    """CUDA context, NCCL buffers, workspaces, fragmentation. A guess."""
    peak_tflops: float = Field(default=989.0, gt=0)
    """Dense bf16 matmul peak of one GPU."""
    utilisation: float = Field(default=0.40, gt=0, le=1)
    """Model FLOPs utilisation of training to expect; what well-tuned Megatron runs of 8B dense models reach."""
    memory_tb_per_s: float = Field(default=3.35, gt=0)
    """Memory bandwidth of one GPU: what bounds decoding."""
    decode_utilisation: float = Field(default=0.5, gt=0, le=1)
    """Share of that bandwidth which a rollout server reaches. A guess."""
    sync_gib_per_s: float = Field(default=20.0, gt=0)
    """Weights from the actor to one rollout server. A guess."""
    checkpoint_gib_per_s: float = Field(default=5.0, gt=0)
    """Write bandwidth of the shared file system, all nodes together."""
    start_s: float = Field(default=180.0, ge=0)
    """From the start of a job to its first step: imports, process groups, loading weights. A guess."""
    slurm: SlurmConfig | None = None
    """Queues and habits of the site, for `osim launch`; None: this machine, without Slurm."""

    @property
    def world_size(self) -> int:
        return self.nodes * self.gpus_per_node

    @property
    def time_limit_s(self) -> int | None:
        """Wall-time limit of one attempt of a job, where the site has queues."""
        return time_s(self.slurm.time) if self.slurm else None

    @property
    def signal_lead_s(self) -> int:
        """How long before that limit a run is told to save and end."""
        return self.slurm.signal_lead_s if self.slurm else 0
