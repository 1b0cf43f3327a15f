"""Model folders, checkpoints' state, and the HTTP answers of rollout servers."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import DataError, OsimError
from common.files import write_json
from envs.engine import EngineError
from launch.evaluation.vllm import read_generation
from megatron_osim.architecture import ArchitectureConfig
from megatron_osim.checkpoint import STATE, Checkpoint, list_checkpoints
from megatron_osim.convert.load import _tensor_files
from rl.rollout.checkpoint import read_config, read_tensors, stop_ids_of, tensor_shapes
from rl.rollout.config import RolloutConfig
from rl.rollout.server import SGLangServer
from rl.rollout.sglang import SGLangEngine
from tests.fuzz.harness import changed, files, fuzz, memory_limit, mutated, survives, values

CONFIG = ArchitectureConfig(
    vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
    num_key_value_heads=1, head_dim=8, eos_token_id=3,
).to_hf_config()  # fmt: skip


def safetensors(tensors: dict[str, tuple[int, ...]]) -> bytes:
    """A file of zeros, written by hand so that no torch is needed."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, shape in tensors.items():
        size = 4
        for n in shape:
            size *= n
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(at)


WEIGHTS = safetensors({"a.weight": (2, 3), "b.weight": (4,)})
INDEX = {"metadata": {"total_size": 40}, "weight_map": {"a.weight": "model.safetensors"}}


@fuzz(80)
@given(data=files(json.dumps(CONFIG).encode()))
def test_any_model_config_is_an_architecture_or_refused(data: bytes, tmp_path: Path) -> None:
    for name in ("config.json", "generation_config.json"):
        (tmp_path / name).write_bytes(data)
    survives(lambda: ArchitectureConfig.from_hf_config(tmp_path))
    survives(lambda: read_config(tmp_path))
    survives(lambda: stop_ids_of(tmp_path))
    survives(lambda: SGLangServer(tmp_path, RolloutConfig(device="cpu"), tmp_path)._flags(0))


@fuzz(40)
@given(data=mutated(WEIGHTS) | st.binary(max_size=40))
def test_any_safetensors_file_is_read_or_refused(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(data)
    survives(lambda: tensor_shapes(tmp_path))
    survives(lambda: list(read_tensors(tmp_path)))


@pytest.mark.parametrize("lie", [2**31, 2**40, 2**60, 2**63, 2**64 - 1])
def test_a_header_that_lies_about_its_length_allocates_nothing(lie: int, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", lie) + WEIGHTS[8:])
    with memory_limit(256 << 20):
        assert isinstance(survives(lambda: tensor_shapes(tmp_path)), DataError)
        assert isinstance(survives(lambda: list(read_tensors(tmp_path))), DataError)


@fuzz(40)
@given(data=files(json.dumps(INDEX).encode()))
def test_any_index_of_weights_is_followed_inside_the_folder_or_refused(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(WEIGHTS)
    (tmp_path / "model.safetensors.index.json").write_bytes(data)
    found = survives(lambda: _tensor_files(tmp_path))
    assert isinstance(found, OsimError) or all(path.parent == tmp_path for path in found.values())


@pytest.mark.parametrize(
    "name",
    [
        "../other.safetensors",
        "/etc/passwd",
        "a/b.safetensors",
        "",
        "..",
        "x\x00y",
        pytest.param("n" * 300, id="long"),
    ],
)
def test_an_index_never_names_a_file_elsewhere(name: str, tmp_path: Path) -> None:
    (tmp_path / "other.safetensors").write_bytes(WEIGHTS)
    (tmp_path / "model").mkdir()
    write_json(tmp_path / "model" / "model.safetensors.index.json", {"weight_map": {"a": name}})
    assert isinstance(survives(lambda: _tensor_files(tmp_path / "model")), OsimError)


@fuzz(30)
@given(data=files(b'{"format": 1, "step": 3, "layout": {"expert": 1}, "extra": {"grad_norms": [1.0]}}'))
def test_any_state_of_a_checkpoint_is_an_object_or_refused(data: bytes, tmp_path: Path) -> None:
    folder = tmp_path / "step-00000003"
    folder.mkdir(exist_ok=True)
    (folder / STATE).write_bytes(data)
    assert list_checkpoints(tmp_path) == [Checkpoint(folder, 3)]
    found = survives(lambda: Checkpoint(folder, 3).state)
    assert isinstance(found, dict | DataError)


SGLANG = {
    "output_ids": [5, 3],
    "meta_info": {
        "finish_reason": {"type": "stop"},
        "output_token_logprobs": [[-0.5, 5, None], [-0.1, 3, None]],
        "weight_versions": [{"version": "0", "start": 0, "end": 2}],
        "weight_version": "0",
        "cached_tokens": 0,
    },
}
VLLM = {"choices": [{"token_ids": [5, 3], "logprobs": {"token_logprobs": [-0.5, -0.1]}, "finish_reason": "stop"}]}


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> SGLangEngine:
    folder = tmp_path_factory.mktemp("model")
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "model.safetensors").write_bytes(WEIGHTS)
    return SGLangEngine("http://127.0.0.1:9", folder)


@fuzz(120)
@given(reply=changed(SGLANG) | values)
def test_any_answer_of_sglang_is_a_generation_or_an_engine_error(engine: SGLangEngine, reply: Any) -> None:
    if not isinstance(reply, dict):
        return  # `_post` has refused it
    try:
        found = engine._generation(reply)
    except EngineError as e:
        assert str(e)
    else:
        assert len(found.ids) == len(found.logprobs) and all(0 <= i < engine.vocab_size for i in found.ids)
        assert all(abs(p) < float("inf") for p in found.logprobs)


@fuzz(60)
@given(reply=changed(VLLM) | values)
def test_any_answer_of_vllm_is_a_generation_or_an_engine_error(reply: Any) -> None:
    try:
        found = read_generation(reply)
    except EngineError as e:
        assert str(e)
    else:
        assert len(found.ids) == len(found.logprobs)
