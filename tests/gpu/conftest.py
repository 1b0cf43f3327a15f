"""Everything in this folder needs CUDA and says so where there is none."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from megatron_osim.config import ParallelConfig
from megatron_osim.runtime import Ranks, detect_capability, initialize, shutdown

NO_GPU = "no CUDA device: this path has only been written, not run, here"


@pytest.fixture(autouse=True)
def _needs_gpu() -> None:
    if not torch.cuda.is_available():
        pytest.skip(NO_GPU)


@pytest.fixture()
def transformer_engine() -> None:
    """Skips where Transformer Engine does not import."""
    if torch.cuda.is_available() and not detect_capability().transformer_engine:
        pytest.skip("Transformer Engine does not import here (extra `gpu`)")


@pytest.fixture(scope="package")
def gpu(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ranks]:
    """This process as a job of one rank on the first GPU."""
    if not torch.cuda.is_available():
        pytest.skip(NO_GPU)
    yield initialize(ParallelConfig(), rendezvous=(tmp_path_factory.mktemp("gpu") / "rendezvous").as_uri())
    shutdown()
