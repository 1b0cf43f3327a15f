"""Resuming on a GPU, with whichever AdamW is there: bitwise over many steps."""

from __future__ import annotations

from pathlib import Path

import pytest

from megatron_osim.checkpoint import Checkpointer
from megatron_osim.config import CheckpointConfig
from megatron_osim.runtime import Ranks
from megatron_osim.train_step import token_mean_loss, train_step
from megatron_osim.trainer import Trainer
from tests.gpu.models import make
from tests.megatron_osim.samples import global_batch

pytestmark = pytest.mark.gpu


def train(trainer: Trainer, steps: range) -> list[float]:
    return [train_step(trainer, global_batch(s, 2), token_mean_loss, lr=1e-3).loss for s in steps]


@pytest.mark.parametrize("distributed_optimizer", [True, False])
def test_a_resumed_run_is_the_uninterrupted_one(gpu: Ranks, tmp_path: Path, distributed_optimizer: bool) -> None:
    trainer = make(gpu, distributed_optimizer=distributed_optimizer)
    checkpointer = Checkpointer(trainer, tmp_path, CheckpointConfig())
    train(trainer, range(5))
    checkpointer.save(5)
    expected = train(trainer, range(5, 17))
    checkpointer.wait()
    other = make(gpu, seed=9, distributed_optimizer=distributed_optimizer)
    assert Checkpointer(other, tmp_path, CheckpointConfig()).load_latest() is not None
    # Atomic adds in some kernels may change the last bits.
    assert train(other, range(5, 17)) == pytest.approx(expected, abs=2e-3)
