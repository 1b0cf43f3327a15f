"""One tiny model and one single-rank Megatron job per test session."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# Machines that share their cores make single examples slow; the suite has its own timeouts.
settings.register_profile("no-deadline", deadline=None)
settings.load_profile("no-deadline")


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Qwen3 of 2 layers with a byte-level tokenizer, as a Hugging Face folder."""
    from tests.rl.rollout.conftest import write_checkpoint

    return write_checkpoint(tmp_path_factory.mktemp("rl-model") / "hf", seed=3)


@pytest.fixture
def ranks(tmp_path: Path) -> Iterator[object]:
    """This process as a job of one rank."""
    from megatron_osim.config import ParallelConfig
    from megatron_osim.runtime import initialize, shutdown

    try:
        yield initialize(ParallelConfig(), rendezvous=(tmp_path / "rendezvous").as_uri(), timeout_s=120.0)
    finally:
        shutdown()
