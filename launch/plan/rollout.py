"""What a rollout server holds and how fast it decodes: rooflines over the cluster's figures, never measurements.

A decoding step reads the weights once and the key-value cache of every running sequence; a prompt is bound by
arithmetic. Both are lower bounds of the time divided by the cluster's assumed utilisations.
"""

from __future__ import annotations

from dataclasses import dataclass

from launch.plan.cluster import GIB, ClusterConfig
from launch.plan.memory import kv_bytes_per_token
from megatron_osim.config import ArchitectureConfig

SERVER_MARGIN_GIB = 2.0
"""Of each GPU beside weights and cache: activations, CUDA graphs, workspaces. A guess."""
BYTES_PER_VALUE = 2
"""Servers on GPUs hold bf16 weights and cache."""


@dataclass(frozen=True)
class ServerMemory:
    """One GPU of a server, in bytes."""

    weights: float
    pool: float
    """For the key-value cache."""
    kv_per_token: float

    @property
    def tokens(self) -> int:
        """Of all running sequences together."""
        return max(0, int(self.pool / self.kv_per_token))

    def sequences(self, length: int) -> int:
        """Whole sequences of this many tokens that run at once."""
        return self.tokens // length


def server_memory(
    arch: ArchitectureConfig, cluster: ClusterConfig, *, tensor_parallel: int, mem_fraction: float
) -> ServerMemory:
    """SGLang gives weights and cache together `mem_fraction` of the card."""
    weights = BYTES_PER_VALUE * arch.num_parameters / tensor_parallel
    pool = mem_fraction * cluster.gpu_memory_gib * GIB - weights - SERVER_MARGIN_GIB * GIB
    kv = kv_bytes_per_token(arch, tensor=tensor_parallel, bytes_per_value=BYTES_PER_VALUE)
    return ServerMemory(weights, max(0.0, pool), kv)


def decode_tokens_per_s(
    memory: ServerMemory, cluster: ClusterConfig, *, running: int, context_tokens: float
) -> float:
    """Of one server with `running` sequences that hold `context_tokens` each on average."""
    step_bytes = memory.weights + running * context_tokens * memory.kv_per_token
    return running * cluster.memory_tb_per_s * 1e12 * cluster.decode_utilisation / step_bytes


def prefill_seconds(arch: ArchitectureConfig, cluster: ClusterConfig, *, tokens: float, gpus: int) -> float:
    """Of `tokens` of prompts that no cache holds."""
    flops = arch.flops_per_token(1) / 3 * tokens  # forward only
    return flops / (gpus * cluster.peak_tflops * 1e12 * cluster.utilisation)
