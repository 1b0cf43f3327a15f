"""Makes unmodified Megatron-Core run on CPU tensors over gloo.

Megatron-Core 0.16.1 names CUDA devices, generators and tensor types literally. Its modules are given a copy of the
`torch` module in which those names mean the CPU; everything else in the process keeps the real torch (patching torch
itself breaks others without an error: transformers, for one, then loads models with unset rotary frequencies). Two
tensor methods cannot be copied; they are redirected by the module that calls them.

`install` does nothing where CUDA is present, and refuses to start when a name it replaces no longer exists (a new
torch or Megatron), instead of leaving a site that would silently compute something else.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.metadata
import logging
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch

from common.errors import UsageError

MEGATRON = "megatron.core"
TESTED_MEGATRON = ("0.16.", "0.19.")
FACTORIES = ("tensor", "zeros", "ones", "empty", "full", "arange", "zeros_like", "empty_like", "ones_like")
MODULES = (
    "megatron.core.distributed",
    "megatron.core.optimizer",
    "megatron.core.optimizer.distrib_optimizer",
    "megatron.core.pipeline_parallel",
    "megatron.core.models.gpt.gpt_model",
    "megatron.core.transformer.moe.moe_layer",
    "megatron.core.dist_checkpointing",
    "megatron.core.dist_checkpointing.strategies.async_utils",
    "megatron.core.dist_checkpointing.strategies.filesystem_async",
    "megatron.core.dist_checkpointing.strategies.state_dict_saver",
    "megatron.core.dist_checkpointing.strategies.torch",
)
"""Imported before the adaptation, so that everything they import is adapted too. A module imported later and not
adapted fails at its first CUDA name."""
_CPU = torch.device("cpu")
_installed: list[str] = []


def install(device: torch.device = _CPU) -> tuple[str, ...]:
    """Apply every adaptation once; return their names (none where CUDA is present).

    device: what stands for the GPU; `meta` counts tensors without making them (footprint.py).

    Raises UsageError when Megatron-Core's version is untested or a replaced name has vanished.
    """
    if torch.cuda.is_available() or _installed:
        return tuple(_installed)
    version = importlib.metadata.version("megatron-core")
    if not version.startswith(TESTED_MEGATRON):
        raise UsageError(
            f"megatron-core {version} was never tested on CPU",
            fix=f"install {' or '.join(v + 'x' for v in TESTED_MEGATRON)} (make setup)",
        )
    for name in MODULES:
        importlib.import_module(name)
    view = _Copy(torch, cuda=_Copy(torch.cuda, random=_Copy(torch.cuda.random)))
    view.__dict__["stand_in"] = device
    for name, adapt in ADAPTATIONS.items():
        adapt(view)
        _installed.append(name)
    for module in _megatron_modules():
        if vars(module).get("torch") is torch:
            vars(module)["torch"] = view
    return tuple(_installed)


def _megatron_modules() -> list[ModuleType]:
    return [module for name, module in sys.modules.items() if name.startswith(MEGATRON)]


class _Copy(ModuleType):
    """A module with the same contents as `original`, except for what `replace` and the given submodules change."""

    def __init__(self, original: ModuleType, **submodules: _Copy) -> None:
        super().__init__(original.__name__, original.__doc__)
        self.__dict__.update(vars(original) | submodules)
        self.__dict__["_original"] = original

    def __getattr__(self, name: str) -> Any:  # attributes that modules resolve lazily
        return getattr(self.__dict__["_original"], name)

    def replace(self, name: str, value: Callable[..., Any]) -> None:
        """Change one name, which must exist."""
        _existing(self, name)
        self.__dict__[name] = value


def _existing(owner: Any, name: str) -> Any:
    if not hasattr(owner, name):
        raise UsageError(
            f"{getattr(owner, '__name__', owner)}.{name} no longer exists: the CPU adaptation must be revised",
            fix="install the versions of constraints.txt (make setup)",
        )
    return getattr(owner, name)


def _caller_is(prefix: str) -> bool:
    """Whether the function that called the redirected method lives in a module under `prefix`."""
    return str(sys._getframe(2).f_globals.get("__name__", "")).startswith(prefix)


def adapt_current_device(view: _Copy) -> None:
    """torch.cuda.current_device() is the CPU (most sites)."""
    view.cuda.replace("current_device", lambda: view.stand_in)


def adapt_literal_devices(view: _Copy) -> None:
    """device="cuda" in factory functions, and Tensor.cuda(), mean the CPU."""

    def on_cpu(original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def factory(*args: Any, **kwargs: Any) -> Any:
            if str(kwargs.get("device")).startswith("cuda"):
                kwargs["device"] = view.stand_in
            return original(*args, **kwargs)

        return factory

    for name in FACTORIES:
        view.replace(name, on_cpu(_existing(torch, name)))
    to_cuda = _existing(torch.Tensor, "cuda")

    @functools.wraps(to_cuda)
    def cuda(self: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        return self if _caller_is(MEGATRON) else to_cuda(self, *args, **kwargs)

    torch.Tensor.cuda = cuda


def adapt_generators(view: _Copy) -> None:
    """Megatron's CUDA generator is the CPU generator: its RNG tracker really saves, forks and restores it.

    Without the replacement of _set_cuda_rng_state nothing fails: torch queues the restore for a CUDA start that never
    comes, and `fork()` silently leaves the generator where it was.
    """
    random: Any = importlib.import_module("megatron.core.tensor_parallel.random")
    for module in (view.cuda, view.cuda.random):
        module.replace("get_rng_state", lambda device="cuda": torch.get_rng_state())
    # torch.manual_seed calls torch.cuda.manual_seed_all itself, so the generator is seeded directly.
    view.cuda.replace("manual_seed", lambda seed: torch.default_generator.manual_seed(int(seed)))
    _existing(random, "_set_cuda_rng_state")
    random._set_cuda_rng_state = lambda state, device=-1, graph_safe=False: torch.set_rng_state(state)
    # fork() warns when the CPU generator moved inside it. Here it is the one that is meant to move.
    logging.getLogger(random.__name__).addFilter(lambda r: "CPU RNG state changed" not in r.getMessage())


class _InOrder:
    """Stands for a stream or an event where nothing is asynchronous: everything has already happened."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def _at_once(self, *_: Any, **__: Any) -> _InOrder:
        return self

    wait_stream = wait_event = record_event = record = wait = synchronize = _at_once


def adapt_streams(view: _Copy) -> None:
    """Nothing is asynchronous on CPU: streams and events (experts use them) wait for nothing."""
    only = _InOrder()
    view.cuda.replace("synchronize", lambda *_, **__: None)
    view.cuda.replace("Stream", lambda *_, **__: only)
    view.cuda.replace("Event", lambda *_, **__: only)
    view.cuda.replace("current_stream", lambda *_, **__: only)
    view.cuda.replace("stream", lambda *_, **__: contextlib.nullcontext())


def adapt_tensor_types(_view: _Copy) -> None:
    """Megatron's optimizers compare Tensor.type() with torch.cuda.FloatTensor; they see that name for CPU tensors."""
    original = _existing(torch.Tensor, "type")

    @functools.wraps(original)
    def tensor_type(self: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        found = original(self, *args, **kwargs)
        if isinstance(found, str) and _caller_is(MEGATRON + ".optimizer"):
            return f"torch.cuda.{found.rpartition('.')[2]}"
        return found

    torch.Tensor.type = tensor_type


def adapt_expert_splits(_view: _Copy) -> None:
    """Split sizes of the experts' all-to-all are copied to the host as lists only where they are CUDA tensors."""
    dispatcher: Any = importlib.import_module("megatron.core.transformer.moe.token_dispatcher")
    original = _existing(dispatcher, "maybe_move_tensor_to_cpu")

    @functools.wraps(original)
    def move(tensor: Any, as_numpy: bool = False, record_stream: bool = False) -> Any:
        moved = original(tensor, as_numpy, record_stream)
        return moved.numpy() if as_numpy and torch.is_tensor(moved) else moved

    dispatcher.maybe_move_tensor_to_cpu = move


def adapt_compilation(_view: _Copy) -> None:
    """Functions that Megatron compiles for GPUs run as they are written; compiling them here needs a C++
    toolchain."""
    jit: Any = importlib.import_module("megatron.core.jit")
    _existing(jit, "jit_fuser")
    jit.jit_fuser = lambda function: function
    owners: list[Any] = _megatron_modules()
    owners += [value for module in owners for value in vars(module).values() if isinstance(value, type)]
    for owner in owners:
        for name, value in list(vars(owner).items()):
            original = getattr(value, "_torchdynamo_orig_callable", None)
            if original is not None:
                setattr(owner, name, original)


ADAPTATIONS: dict[str, Callable[[Any], None]] = {
    "current_device": adapt_current_device,
    "literal_devices": adapt_literal_devices,
    "generators": adapt_generators,
    "streams": adapt_streams,
    "tensor_types": adapt_tensor_types,
    "expert_splits": adapt_expert_splits,
    "compilation": adapt_compilation,
}
