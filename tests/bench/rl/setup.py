"""One rank, a random model of the quickstart's size, and short runs of the real loop on hitom_mini."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from common.config import validate
from common.run_folder import RunFolder
from megatron_osim.config import ParallelConfig
from megatron_osim.runtime import Ranks, initialize, shutdown
from rl.config import RLConfig


def write_model(folder: Path, *, hidden: int, layers: int) -> Path:
    """Random weights with the tests' byte-level tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, Qwen3Config

    from tests.rl.rollout.conftest import VOCAB_SIZE, write_checkpoint

    write_checkpoint(folder, seed=1)
    config = Qwen3Config(
        vocab_size=VOCAB_SIZE,
        hidden_size=hidden,
        intermediate_size=3 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 32,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
    )
    torch.manual_seed(1)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


def config(model: Path, **changes: Any) -> RLConfig:
    """Six steps of 8 x 8 rollouts with the embedded engine."""
    base: dict[str, Any] = {
        "model": str(model),
        "tasks": [{"task": "hitom_mini", "rows": 100, "algorithm": {"name": "grpo", "variant": "rae"}}],
        "steps": 6,
        "groups_per_step": 8,
        "samples_per_prompt": 8,
        "max_tokens_per_micro_batch": 4096,
        "sampling": {"max_tokens": 32, "max_context_tokens": 1600},
        "rollout": {"kind": "embedded"},
        "checkpoint": {"every_steps": 3},
        "export_hf": False,
    }
    return validate(RLConfig, base | changes, where="benchmark")


@contextmanager
def one_rank(folder: Path) -> Iterator[Ranks]:
    """This process as a job of one."""
    try:
        yield initialize(ParallelConfig(), rendezvous=(folder / "rendezvous").as_uri(), timeout_s=600.0)
    finally:
        shutdown()


def train(settings: RLConfig, folder: Path, ranks: Ranks) -> list[dict[str, Any]]:
    """The metric lines of a whole run."""
    from rl.loop import train as loop

    run = RunFolder.prepare(folder, settings)
    loop(settings, run, ranks)
    return run.read_metrics("rl")
