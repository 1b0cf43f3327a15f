"""From this layout's shards to Hugging Face tensors, one at a time: for exports and for weight synchronisation.

No rank ever holds the whole model: tensor shards are gathered on the first rank of the pipeline stage that owns
them, turned into Hugging Face tensors there and sent to rank 0. Only one replica takes part.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
import torch.distributed as dist
from megatron.core import parallel_state
from safetensors.torch import save_file
from torch import Tensor

from common.errors import UsageError
from common.files import atomic_directory, write_json
from megatron_osim.config import ArchitectureConfig
from megatron_osim.convert.mapping import Replicated, global_names, hf_shape, rule_for
from megatron_osim.convert.parameters import merged, named_parameters
from megatron_osim.model import DecoderModel

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "generation_config.json",
)
MAX_FILE_BYTES = 5 * 10**9
DTYPE_NAMES = {torch.float32: "float32", torch.bfloat16: "bfloat16", torch.float16: "float16"}


@torch.no_grad()
def iter_hf_tensors(chunks: Sequence[DecoderModel], arch: ArchitectureConfig) -> Iterator[tuple[str, Tensor]]:
    """Yield (Hugging Face name, whole tensor) on rank 0, on its device; other ranks take part and yield nothing.
    Adapters are merged into their weights, one tensor at a time.

    Collective: every rank must run the iterator to its end.
    """
    mine = named_parameters(chunks, arch)
    dtype = next(iter(mine.values())).dtype
    rank = dist.get_rank()
    tensor_ranks = dist.get_process_group_ranks(parallel_state.get_tensor_model_parallel_group())
    for name in global_names(arch):
        owner = _owner(arch, name)
        rule = rule_for(arch, name)
        if tensor_ranks[0] == owner:
            shard = merged(name, mine)
            if isinstance(rule, Replicated):
                full = shard
            else:
                shards = _gather(shard, owner)
                full = rule.unshard(shards) if rank == owner else shard
            if rank == owner:
                parts = [part.contiguous() for part in rule.split(full)]
                if owner != 0:
                    for part in parts:
                        dist.send(part, 0)
        if rank == 0:
            if owner != 0:
                device = next(iter(mine.values())).device
                parts = [torch.empty(hf_shape(arch, n), dtype=dtype, device=device) for n in rule.hf_names]
                for part in parts:
                    dist.recv(part, owner)
            yield from zip(rule.hf_names, parts, strict=True)


def export_hf(
    chunks: Sequence[DecoderModel], arch: ArchitectureConfig, out_dir: Path, tokenizer_dir: Path | None = None
) -> None:
    """Write safetensors, config.json and the tokenizer files: loadable by transformers, SGLang and vLLM.

    The folder appears whole or not at all. Collective: every rank calls it.
    """
    # Asked on every rank: an error on one alone would leave the others waiting for its part of the tensors.
    if tokenizer_dir is not None and not (tokenizer_dir / "tokenizer.json").is_file():
        raise UsageError("no tokenizer.json here", where=str(tokenizer_dir), fix="give the tokenizer's folder")
    tensors = iter_hf_tensors(chunks, arch)
    if dist.get_rank() != 0:
        for _ in tensors:
            pass
    else:
        with atomic_directory(out_dir) as folder:
            dtype = next(chunks[0].parameters()).dtype
            _write_tensors(tensors, arch, folder, dtype)
            write_json(folder / "config.json", arch.to_hf_config(dtype=DTYPE_NAMES[dtype]))
            if tokenizer_dir is not None:
                for file in TOKENIZER_FILES:
                    if (tokenizer_dir / file).is_file():
                        shutil.copyfile(tokenizer_dir / file, folder / file)
    dist.barrier()


def _write_tensors(
    tensors: Iterator[tuple[str, Tensor]], arch: ArchitectureConfig, folder: Path, dtype: torch.dtype
) -> None:
    """Files of at most MAX_FILE_BYTES, whose contents are known beforehand from the architecture."""
    files: list[list[str]] = [[]]
    size = total = 0
    for name in (hf for parameter in global_names(arch) for hf in rule_for(arch, parameter).hf_names):
        nbytes = torch.Size(hf_shape(arch, name)).numel() * dtype.itemsize
        if size + nbytes > MAX_FILE_BYTES and files[-1]:
            files.append([])
            size = 0
        files[-1].append(name)
        size, total = size + nbytes, total + nbytes
    weight_map: dict[str, str] = {}
    for i, names in enumerate(files):
        file = "model.safetensors" if len(files) == 1 else f"model-{i + 1:05d}-of-{len(files):05d}.safetensors"
        found = dict(next(tensors) for _ in names)
        save_file({n: t.cpu() for n, t in found.items()}, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(names, file)
    for left in tensors:
        raise AssertionError(f"{left[0]} was not expected")
    if len(files) > 1:
        write_json(
            folder / "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": weight_map}
        )


def _owner(arch: ArchitectureConfig, name: str) -> int:
    """Global rank that turns this parameter into Hugging Face tensors.

    Megatron numbers ranks tensor first, then context, expert, data, pipeline.
    """
    pipeline = parallel_state.get_pipeline_model_parallel_world_size()
    stage_ranks = dist.get_world_size() // pipeline
    if layer := re.match(r"decoder\.layers\.(\d+)\.", name):
        chunks = pipeline * (parallel_state.get_virtual_pipeline_model_parallel_world_size() or 1)
        stage = int(layer[1]) // (arch.num_hidden_layers // chunks) % pipeline
    else:
        stage = 0 if name.startswith("embedding") else pipeline - 1
    within = 0
    if arch.moe and (expert := re.search(r"local_experts\.(\d+)\.", name)):
        per_rank = arch.moe.num_experts // parallel_state.get_expert_model_parallel_world_size()
        within = int(expert[1]) // per_rank * parallel_state.get_tensor_model_parallel_world_size()
    return stage * stage_ranks + within


def _gather(shard: Tensor, owner: int) -> list[Tensor]:
    """Shards of the tensor parallel group, on its first rank."""
    group = parallel_state.get_tensor_model_parallel_group()
    if dist.get_world_size(group) == 1:
        return [shard]
    shards = (
        [torch.empty_like(shard) for _ in range(dist.get_world_size(group))] if dist.get_rank() == owner else None
    )
    dist.gather(shard.contiguous(), shards, dst=owner, group=group)
    return shards or []
