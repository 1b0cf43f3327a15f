"""Fills a model with weights, one Hugging Face tensor at a time; every rank reads only what it holds.

Both functions fill every parameter or raise: nothing keeps the garbage of an unset tensor.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import torch
from megatron.core import parallel_state
from safetensors import SafetensorError, safe_open
from torch import Tensor

from common.errors import DataError, UsageError, data_errors
from common.files import read_json_object
from common.seeds import derive_seed
from megatron_osim.config import ArchitectureConfig
from megatron_osim.convert.mapping import hf_shape, rule_for
from megatron_osim.convert.parameters import is_adapter, named_parameters
from megatron_osim.model import DecoderModel

Source = Callable[[str], Tensor]


def load_hf(chunks: Sequence[DecoderModel], arch: ArchitectureConfig, folder: Path) -> None:
    """Copy the safetensors of a Hugging Face folder into this rank's chunks.

    Raises UsageError when there are no safetensors, DataError when a tensor is missing or has another shape than
    `arch` says.
    """
    with ExitStack() as stack:
        try:
            files = {name: stack.enter_context(safe_open(file, "pt")) for name, file in _tensor_files(folder).items()}
        except (SafetensorError, OSError) as e:
            raise DataError(f"unreadable weights: {e}", where=str(folder), fix="fetch or export them again") from e
        index = {key: handle for handle in files.values() for key in handle.keys()}  # noqa: SIM118 (not a dict)

        def read(name: str) -> Tensor:
            if name not in index:
                raise DataError(f"no tensor {name}", where=str(folder), fix="give the folder of a whole model")
            return index[name].get_tensor(name)

        _fill(chunks, arch, read, where=str(folder))


def load_random(chunks: Sequence[DecoderModel], arch: ArchitectureConfig, *, seed: int) -> None:
    """Random weights that depend on (seed, tensor name) only, never on the layout.

    Normal with std initializer_range, divided by sqrt(2 * layers) for the two projections back into the residual
    stream (GPT-2); norms are 1, biases 0.
    """

    def draw(name: str) -> Tensor:
        shape = hf_shape(arch, name)
        if name.endswith("norm.weight"):
            return torch.ones(shape)
        if name.endswith(".bias"):
            return torch.zeros(shape)
        residual = name.endswith(("o_proj.weight", "down_proj.weight"))
        std = arch.initializer_range / (math.sqrt(2 * arch.num_hidden_layers) if residual else 1.0)
        generator = torch.Generator().manual_seed(derive_seed(seed, "weights", name))
        return torch.empty(shape).normal_(0.0, std, generator=generator)

    _fill(chunks, arch, draw, where="random weights")


@torch.no_grad()
def _fill(chunks: Sequence[DecoderModel], arch: ArchitectureConfig, source: Source, *, where: str) -> None:
    rank = parallel_state.get_tensor_model_parallel_rank()
    size = parallel_state.get_tensor_model_parallel_world_size()
    for name, parameter in named_parameters(chunks, arch).items():
        if is_adapter(name):
            continue
        rule = rule_for(arch, name)
        parts = [source(hf_name) for hf_name in rule.hf_names]
        for hf_name, part in zip(rule.hf_names, parts, strict=True):
            if tuple(part.shape) != hf_shape(arch, hf_name):
                raise DataError(
                    f"{hf_name} has shape {tuple(part.shape)}, config.json says {hf_shape(arch, hf_name)}",
                    where=where,
                    fix="give a folder whose config.json and weights belong together",
                )
        parameter.copy_(rule.shard(rule.merge(parts), rank, size))


def _tensor_files(folder: Path) -> dict[str, Path]:
    """The safetensors files of a model folder, sharded or not."""
    index = folder / "model.safetensors.index.json"
    names = ["model.safetensors"]
    if index.is_file():
        with data_errors(str(index), fix="fetch or export the model again", what="not an index of weights"):
            names = sorted({str(name) for name in read_json_object(index)["weight_map"].values()})
    if outside := [name for name in names if Path(name).name != name]:
        raise DataError(f"weights outside the folder: {outside[0]}", where=str(index), fix="fetch the model again")
    # Looked for among the files that are there: asking for a name of thousands of signs is an error of the system.
    present = {file.name for file in folder.glob("*") if file.is_file()}
    if missing := [name for name in names if name not in present]:
        raise UsageError(
            f"no {missing[0]:.100} here", where=str(folder), fix="give a folder with safetensors weights"
        )
    return {name: folder / name for name in names}
