"""`osim convert` through the command line, in processes of its own as a user runs it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from common.files import hash_file
from launch import cli
from tests.rl.rollout.conftest import write_checkpoint


def run(*arguments: str) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.run(["convert", *arguments])
    assert ended.value.code == 0


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}


@pytest.mark.slow
def test_hugging_face_to_megatron_and_back_keeps_every_bit(tmp_path: Path) -> None:
    hf, megatron, back = tmp_path / "hf", tmp_path / "megatron", tmp_path / "back"
    write_checkpoint(hf, seed=5)
    run("hf-to-megatron", str(hf), str(megatron))
    assert [p.name for p in (megatron / "checkpoints").glob("step-*")] == ["step-00000000"]
    run("megatron-to-hf", str(megatron), str(back))
    before, after = weights(hf), weights(back)
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert after[name].dtype == tensor.dtype
        assert torch.equal(after[name], tensor), name
    assert hash_file(back / "tokenizer.json") == hash_file(hf / "tokenizer.json")
