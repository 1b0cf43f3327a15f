"""Adaptations that let the unmodified SGLang wheel serve on a CPU. Imported first by `launch.py`, in every process.

Runs in the rollout server's own environment (.venv-sglang), never in the trainer's. Each adaptation is applied only
where the real package is missing, so all of them are inert on a GPU machine. None changes a number: they give names
to import to modules whose kernels are never called on a CPU (every layer takes SGLang's `forward_native`); a kernel
that is called after all raises NotImplementedError with its name.

* `triton`: SGLang imports it everywhere; it is 1 GB on disk and has no CPU backend.
* `torchvision`: the PyPI wheel is a CUDA build; beside a CPU torch its operators do not load and its import fails.
* `sgl_kernel`: SGLang's CPU engine imports kernel names at module level; PyPI has no CPU build of it.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
import types
from collections.abc import Callable
from importlib.abc import Loader, MetaPathFinder
from typing import Any


def apply() -> None:
    """Apply what this environment needs. Must run before anything else imports torch."""
    if importlib.util.find_spec("triton") is None:
        let_torch_see_no_triton()
        sys.meta_path.insert(0, _TritonFinder())
    import torch

    if torch.version.cuda is None:
        declare_torchvision_operators(torch)
    if importlib.util.find_spec("sgl_kernel") is None:
        sys.modules["sgl_kernel"] = make_sgl_kernel()


def let_torch_see_no_triton() -> None:
    """Have torch find, and remember, that triton is missing: its compiler must not meet the stand-in."""
    sys.modules["triton"] = None  # type: ignore[assignment]
    import torch.utils._triton

    torch.utils._triton.has_triton_package()
    import torch._inductor.runtime.triton_compat

    del sys.modules["triton"]


def declare_torchvision_operators(torch: Any) -> None:
    """Declare the two operators whose absence breaks `import torchvision`; nothing calls them."""
    library = torch.library.Library("torchvision", "DEF")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    declare_torchvision_operators.library = library  # type: ignore[attr-defined]  # dropped, it would undeclare them


def make_sgl_kernel() -> types.ModuleType:
    """A `sgl_kernel` any name of which can be imported and none called."""
    module = types.ModuleType("sgl_kernel")
    module.__spec__ = importlib.machinery.ModuleSpec("sgl_kernel", None, is_package=True)
    module.__path__ = []
    module.__version__ = "0"  # type: ignore[attr-defined]
    module.__getattr__ = _missing_kernel  # type: ignore[method-assign]
    return module


def _missing_kernel(name: str) -> Callable[..., Any]:
    if name.startswith("__"):
        raise AttributeError(name)

    def kernel(*_: Any, **__: Any) -> Any:
        raise NotImplementedError(f"sgl_kernel.{name} was called, and this environment has no CPU kernels")

    return kernel


class _Kernel:
    """What @triton.jit gives: an object that can be configured and indexed by a grid, but not run."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.fn = function
        self.__name__ = getattr(function, "__name__", "kernel")

    def __getitem__(self, _grid: Any) -> _Kernel:
        return self

    def __call__(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError(f"triton kernel {self.__name__} was called, and there is no triton here")


def _decorator(function: Any = None, *_: Any, **__: Any) -> Any:
    """`@jit` and `@jit(…)` alike; kernels pass through."""
    if function is None or not callable(function):
        return _decorator
    return function if isinstance(function, _Kernel) else _Kernel(function)


class _Name(type):
    """Metaclass of stand-ins for types and values: any attribute exists, unions in annotations work."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _stand_in(name)

    def __or__(cls, _other: Any) -> Any:
        return cls

    __ror__ = __or__


def _stand_in(name: str) -> _Name:
    body = {
        "__init__": lambda self, *a, **k: None,
        "__call__": lambda self, *a, **k: None,
        "__class_getitem__": classmethod(lambda cls, _item: cls),
    }
    return _Name(name, (), body)


_TRITON_FUNCTIONS: dict[str, Any] = {
    "jit": _decorator,
    "autotune": _decorator,
    "heuristics": _decorator,
    "builtin": _decorator,
    "must_use_result": _decorator,
    "cdiv": lambda a, b: -(-a // b),
    "next_power_of_2": lambda n: 1 << max(0, n - 1).bit_length(),
}


class _TritonModule(types.ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        value = _TRITON_FUNCTIONS.get(name) or _stand_in(name)
        setattr(self, name, value)
        return value


class _TritonFinder(MetaPathFinder, Loader):
    """Serves `triton` and every `triton.x.y` as a `_TritonModule`."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        if name == "triton" or name.startswith("triton."):
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        module = _TritonModule(spec.name)
        module.__path__ = []
        module.__version__ = "3.9.0"  # type: ignore[attr-defined]
        return module

    def exec_module(self, module: types.ModuleType) -> None:
        """Nothing to run: names appear when they are asked for."""
