"""Checkpoints: bitwise in the same layout, equal in any other, whole or absent."""

from __future__ import annotations

import json
from pathlib import Path
from traceback import StackSummary

import pytest
import torch
from torch.distributed.checkpoint.api import CheckpointException

from common.errors import DataError, UsageError
from common.files import read_sealed_json, write_sealed_json
from megatron_osim.adamw import torch_adamw_parts
from megatron_osim.checkpoint import STATE, Checkpointer, latest_checkpoint, list_checkpoints
from megatron_osim.config import CheckpointConfig
from megatron_osim.runtime import Ranks
from megatron_osim.train_step import token_mean_loss, train_step
from megatron_osim.trainer import Trainer
from tests.megatron_osim.checkpoint_program import LAST, RESUMED, SAVED_AT, base_of
from tests.megatron_osim.layout_program import MODELS
from tests.megatron_osim.samples import global_batch, make_trainer, tiny
from tests.megatron_osim.spmd import start


def train(trainer: Trainer, steps: range) -> list[float]:
    return [train_step(trainer, global_batch(s, 2), token_mean_loss, lr=1e-3).loss for s in steps]


@pytest.mark.parametrize("distributed_optimizer", [True, False])
def test_a_resumed_run_is_bitwise_the_uninterrupted_one(
    single: Ranks, tmp_path: Path, distributed_optimizer: bool
) -> None:
    trainer = make_trainer(single, tiny(), distributed_optimizer=distributed_optimizer)
    checkpointer = Checkpointer(trainer, tmp_path, CheckpointConfig())
    train(trainer, range(5))
    checkpointer.save(5)
    expected = train(trainer, range(5, 17))  # goes on while the checkpoint is written
    checkpointer.wait()
    other = make_trainer(single, tiny(), seed=9, distributed_optimizer=distributed_optimizer)
    assert Checkpointer(other, tmp_path, CheckpointConfig()).load_latest() is not None
    assert train(other, range(5, 17)) == expected
    for a, b in zip(trainer.chunks[0].parameters(), other.chunks[0].parameters(), strict=True):
        assert torch.equal(a, b)


def test_every_parameter_has_its_own_step_count_after_a_load(single: Ranks, tmp_path: Path) -> None:
    # One shared tensor would be advanced once per parameter, and bias correction go wrong in silence.
    trainer = make_trainer(single, tiny())
    checkpointer = Checkpointer(trainer, tmp_path, CheckpointConfig())
    train(trainer, range(3))
    checkpointer.save(3)
    checkpointer.load_latest()
    checkpointer.wait()
    checkpointer.load_latest()
    [part] = torch_adamw_parts(trainer.optimizer)
    steps = [state["step"] for state in part.optimizer.state.values()]
    assert len({s.data_ptr() for s in steps}) == len(steps) > 1
    assert {float(s) for s in steps} == {3.0}
    train(trainer, range(3, 5))
    assert {float(state["step"]) for state in part.optimizer.state.values()} == {5.0}


def test_the_rng_continues_where_it_was(single: Ranks, tmp_path: Path) -> None:
    trainer = make_trainer(single, tiny())
    checkpointer = Checkpointer(trainer, tmp_path, CheckpointConfig())
    checkpointer.save(1)
    checkpointer.wait()
    expected = torch.rand(5)
    torch.manual_seed(123)
    checkpointer.load_latest()
    assert torch.equal(torch.rand(5), expected)


def test_old_checkpoints_are_deleted_except_those_to_keep(single: Ranks, tmp_path: Path) -> None:
    trainer = make_trainer(single, tiny(num_hidden_layers=1))
    checkpointer = Checkpointer(trainer, tmp_path, CheckpointConfig(keep_last=2, keep_every=4))
    for step in range(1, 8):
        checkpointer.save(step)
    checkpointer.wait()
    assert [c.step for c in list_checkpoints(tmp_path)] == [4, 6, 7]


def test_what_is_not_whole_is_not_a_checkpoint(single: Ranks, tmp_path: Path) -> None:
    trainer = make_trainer(single, tiny(num_hidden_layers=1))
    assert latest_checkpoint(tmp_path / "nowhere") is None
    checkpointer = Checkpointer(trainer, tmp_path, CheckpointConfig())
    assert checkpointer.load_latest() is None
    checkpointer.save(2)
    checkpointer.wait()
    (tmp_path / ".step-00000004.tmp").mkdir()  # killed while writing
    (tmp_path / "step-00000003").mkdir()  # without its last file
    found = latest_checkpoint(tmp_path)
    assert found is not None
    assert found.step == 2
    Checkpointer(trainer, tmp_path, CheckpointConfig())
    assert not (tmp_path / ".step-00000004.tmp").exists()


def test_a_checkpoint_of_another_format_is_refused(single: Ranks, tmp_path: Path) -> None:
    trainer = make_trainer(single, tiny(num_hidden_layers=1))
    checkpointer = Checkpointer(trainer, tmp_path, CheckpointConfig())
    checkpointer.save(1)
    checkpointer.wait()
    state = tmp_path / "step-00000001" / STATE
    write_sealed_json(state, read_sealed_json(state) | {"format": 99})
    with pytest.raises(DataError, match="format 99"):
        checkpointer.load_latest()


def test_spread_experts_are_not_resumed_together_nor_the_other_way(single: Ranks, tmp_path: Path) -> None:
    trainer = make_trainer(single, MODELS["moe"])
    checkpointer = Checkpointer(trainer, tmp_path, CheckpointConfig())
    checkpointer.save(1)
    checkpointer.wait()
    assert checkpointer.load_latest() is not None
    state = tmp_path / "step-00000001" / STATE
    saved = read_sealed_json(state)
    write_sealed_json(state, saved | {"layout": saved["layout"] | {"expert": 2}})
    with pytest.raises(DataError, match="saved with expert = 2, now 1"):
        checkpointer.load_latest()


@pytest.fixture(scope="module")
def resharded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("resharded")
    start("tests.megatron_osim.checkpoint_program", 4, folder, timeout_s=560.0)
    return folder


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("saved", "name"), [(s, n) for s, names in RESUMED.items() for n in names])
def test_resuming_under_another_layout_goes_on_as_if_nothing_happened(resharded: Path, saved: str, name: str) -> None:
    expected = json.loads((resharded / f"{base_of(name)}.json").read_text())[SAVED_AT:]
    found = json.loads((resharded / f"{saved}_to_{name}.json").read_text())
    assert len(found) == LAST - SAVED_AT
    assert max(abs(a - b) for a, b in zip(found, expected, strict=True)) < 1e-5


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", [name for name, resumed in RESUMED.items() if name in resumed])
def test_resuming_under_the_same_layout_is_bitwise(resharded: Path, name: str) -> None:
    uninterrupted = json.loads((resharded / f"{name}.json").read_text())[SAVED_AT:]
    assert json.loads((resharded / f"{name}_to_{name}.json").read_text()) == uninterrupted


def test_a_checkpoint_that_is_not_what_was_written_is_refused_and_the_one_before_it_is_named(
    single: Ranks, tmp_path: Path
) -> None:
    trainer = make_trainer(single, tiny(num_hidden_layers=2))
    checkpointer = Checkpointer(trainer, tmp_path, CheckpointConfig())
    for step in (1, 2):
        train(trainer, range(step - 1, step))
        checkpointer.save(step)
    checkpointer.wait()
    newest = latest_checkpoint(tmp_path)
    assert newest is not None and newest.problems() == []
    path = next(newest.path.glob("*.distcp"))
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(bytes(damaged))
    before = [p.detach().clone() for p in trainer.chunks[0].parameters()]
    with pytest.raises(DataError, match=r"(?s)distcp: not what was written.*goes on from step 1"):
        checkpointer.load_latest()
    assert all(torch.equal(a, b) for a, b in zip(before, trainer.chunks[0].parameters(), strict=True))
    newest.path.rename(tmp_path / "damaged")
    found = checkpointer.load_latest()
    assert found is not None and found.step == 1
    (found.path / STATE).write_bytes(b'{"step": 1')
    with pytest.raises(DataError, match="move this checkpoint away"):
        checkpointer.load_latest()


def test_a_checkpoint_that_cannot_be_written_is_one_clear_error(
    single: Ranks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpointer = Checkpointer(make_trainer(single, tiny(num_hidden_layers=1)), tmp_path, CheckpointConfig())

    def full(*, blocking: bool) -> None:
        error = RuntimeError("Worker failure: [Errno 28] No space left on device")
        raise CheckpointException("write", {0: (error, StackSummary())})

    monkeypatch.setattr(checkpointer._queue, "maybe_finalize_async_calls", full)
    with pytest.raises(UsageError, match=r"(?s)No space left on device.*fix: free space"):
        checkpointer.wait()
