"""The CPU adaptation: each part does what it says, for Megatron only, and fails loudly when a name has vanished."""

from __future__ import annotations

import types

import pytest
import torch
from megatron.core.tensor_parallel import checkpoint, get_cuda_rng_tracker
from megatron.core.tensor_parallel import random as megatron_random

from common.errors import UsageError
from megatron_osim.runtime import Ranks, cpu
from megatron_osim.train_step import token_mean_loss, train_step
from tests.megatron_osim.samples import make_trainer, packed, tiny

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="the adaptation is inert where CUDA is present")


def test_other_libraries_see_the_real_torch(single: Ranks) -> None:
    assert cpu.install() == tuple(cpu.ADAPTATIONS)
    assert isinstance(torch.zeros, types.BuiltinFunctionType)
    with pytest.raises((AssertionError, RuntimeError)):
        torch.cuda.current_device()
    with pytest.raises((AssertionError, RuntimeError)):
        torch.zeros(1, device="cuda")
    with pytest.raises((AssertionError, RuntimeError)):
        torch.zeros(1).cuda()
    assert torch.zeros(1).type() == "torch.FloatTensor"


def test_a_model_built_on_the_meta_device_stays_there(single: Ranks) -> None:
    # transformers loads this way; patched factory functions would hide from the device context.
    with torch.device("meta"):
        assert torch.arange(3).is_meta
        assert torch.empty_like(torch.zeros(2)).is_meta


def test_megatron_sees_the_cpu_where_it_names_cuda(single: Ranks) -> None:
    view = vars(megatron_random)["torch"]
    assert view.cuda.current_device() == torch.device("cpu")
    assert view.zeros(2, device="cuda").device.type == "cpu"
    assert view.nn is torch.nn
    view.cuda.synchronize()


def test_forking_the_rng_changes_and_restores_the_generator(single: Ranks) -> None:
    before = torch.get_rng_state()
    with get_cuda_rng_tracker().fork():
        inside = torch.rand(4)
    assert torch.equal(before, torch.get_rng_state())
    with get_cuda_rng_tracker().fork():
        again = torch.rand(4)
    assert not torch.equal(inside, again)
    assert not torch.equal(inside, torch.rand(4))


def test_activation_recomputation_repeats_the_same_dropout(single: Ranks) -> None:
    x = torch.ones(1000, requires_grad=True)
    y = checkpoint(lambda t: torch.nn.functional.dropout(t, 0.5), False, x)
    torch.rand(7)  # the generator moves on between the passes
    y.sum().backward()
    assert torch.equal(x.grad, y.detach())


def test_seeding_the_tracker_sets_the_cpu_generator(single: Ranks) -> None:
    from megatron_osim.runtime.distributed import seed_generators

    seed_generators(5)
    first = torch.rand(3)
    torch.rand(3)
    seed_generators(5)
    assert torch.equal(first, torch.rand(3))


def test_a_training_step_compiles_nothing(single: Ranks) -> None:
    from torch._dynamo.utils import counters

    counters.clear()
    train_step(make_trainer(single, tiny()), [packed(0)], token_mean_loss, lr=1e-3)
    assert not counters["frames"]


def test_a_vanished_name_is_an_error_and_not_a_silent_gap() -> None:
    view = cpu._Copy(types.ModuleType("torch"))
    with pytest.raises(UsageError, match="no longer exists"):
        view.replace("current_device", lambda: None)


def test_an_untested_megatron_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "_installed", [])
    monkeypatch.setattr(cpu, "TESTED_MEGATRON", ("0.99.",))
    with pytest.raises(UsageError, match="never tested"):
        cpu.install()


def test_nothing_is_adapted_where_cuda_is_present(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "_installed", [])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(cpu, "ADAPTATIONS", {"none may run": None})
    assert cpu.install() == ()
