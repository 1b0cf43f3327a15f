"""Reading an HF export directory: model, tensors, end-of-sequence ids, geometry. Read-only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson
import torch

from common.errors import DataError, UsageError, data_errors
from common.files import read_json_object


def read_config(path: Path) -> dict[str, Any]:
    """config.json of an HF directory."""
    file = path / "config.json"
    if not file.is_file():
        raise UsageError(
            "not an HF checkpoint: it has no config.json", where=str(path), fix="give an HF export directory"
        )
    return read_json_object(file)


def positive(config: Mapping[str, Any], name: str, path: Path) -> int:
    """A size in config.json. Raises DataError when it is missing or none."""
    value = config.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise DataError(
            f"{name} is {value!r:.80}, not a size", where=str(path / "config.json"), fix="export the model again"
        )
    return value


def load_model(path: Path, *, device: str = "cpu", attention: str = "sdpa") -> torch.nn.Module:
    """The causal LM of an HF directory, in its own dtype, for inference.

    Raises UsageError for what the embedded engine cannot serve, DataError for weights that do not fit.
    """
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.initialization import no_init_weights

    raw = read_config(path)
    if "sliding_attention" in (raw.get("layer_types") or ()) or raw.get("use_sliding_window"):
        raise UsageError(
            "the embedded engine has no sliding-window attention", where=str(path), fix="serve it with SGLang"
        )
    config = AutoConfig.from_pretrained(path, local_files_only=True)
    with no_init_weights():
        model = AutoModelForCausalLM.from_config(config, dtype=config.dtype, attn_implementation=attention)
    model.tie_weights()
    own = dict(model.named_parameters())
    with torch.no_grad():
        for name, tensor in read_tensors(path):
            if name not in own and config.tie_word_embeddings and name == "lm_head.weight":
                continue
            if name not in own or own[name].shape != tensor.shape:
                raise DataError(f"tensor {name} does not fit config.json", where=str(path), fix="export it again")
            own.pop(name).copy_(tensor)
    if own:
        raise DataError(f"lacks {len(own)} tensors, first {min(own)}", where=str(path), fix="export it again")
    return model.to(device).requires_grad_(False)


def stop_ids_of(path: Path) -> frozenset[int]:
    """The ids that end a generation whatever was asked, as SGLang collects them: model and generation config."""
    found: set[int] = set()
    for name in ("config.json", "generation_config.json"):
        if (path / name).is_file():
            value = read_json_object(path / name).get("eos_token_id")
            with data_errors(str(path / name), fix="export the checkpoint again", what="eos_token_id"):
                found.update(int(i) for i in ([value] if isinstance(value, int) else value or ()))
    return frozenset(found)


def read_tensors(path: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """(name, tensor) of every safetensors file of an HF directory, in file order."""
    from safetensors import SafetensorError, safe_open

    files = sorted(path.glob("*.safetensors"))
    if not files:
        raise DataError("no safetensors files", where=str(path), fix="export the checkpoint again")
    for file in files:
        try:
            with safe_open(file, framework="pt") as shard:
                for name in shard.keys():  # noqa: SIM118 (not a mapping)
                    yield name, shard.get_tensor(name)
        except (SafetensorError, OSError) as e:
            raise DataError(f"unreadable: {e}", where=str(file), fix="export the checkpoint again") from e


def tensor_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of an HF directory, from the files' headers alone."""
    shapes: dict[str, tuple[int, ...]] = {}
    files = sorted(path.glob("*.safetensors"))
    if not files:
        raise DataError("no safetensors files", where=str(path), fix="export the checkpoint again")
    for file in files:
        with data_errors(str(file), fix="export the checkpoint again", what="unreadable"), file.open("rb") as f:
            length = int.from_bytes(f.read(8), "little")
            if length > file.stat().st_size:
                raise ValueError(f"a header of {length} bytes in a smaller file")
            header = orjson.loads(f.read(length))
            tensors = {name: t["shape"] for name, t in header.items() if name != "__metadata__"}
            shapes |= {name: tuple(int(size) for size in shape) for name, shape in tensors.items()}
    return shapes
