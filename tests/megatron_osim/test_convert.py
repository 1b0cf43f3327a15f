"""Hugging Face models of every family: same log-probabilities, bitwise round trip (DESIGN 8, invariant 4)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaConfig, PretrainedConfig, Qwen2Config, Qwen3Config, Qwen3MoeConfig

from common.errors import DataError, UsageError
from common.files import read_json, write_json
from megatron_osim.batch import PackedBatch
from megatron_osim.config import ArchitectureConfig, OptimizerConfig, ParallelConfig
from megatron_osim.convert import export_hf, load_hf
from megatron_osim.model import build_model
from megatron_osim.runtime import Ranks
from megatron_osim.train_step import forward_logprobs
from megatron_osim.trainer import build_trainer
from tests.megatron_osim.corpus import Corpus
from tests.megatron_osim.samples import VOCAB, sequences

SHAPE = {
    "vocab_size": VOCAB,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-6,
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
MODELS: dict[str, PretrainedConfig] = {
    "qwen3": Qwen3Config(**SHAPE, head_dim=16, tie_word_embeddings=False),
    "qwen3_tied": Qwen3Config(**SHAPE, head_dim=16, tie_word_embeddings=True),
    "qwen3_wide_heads": Qwen3Config(**SHAPE, head_dim=24, tie_word_embeddings=False),
    "qwen3_moe": Qwen3MoeConfig(
        **SHAPE, head_dim=16, moe_intermediate_size=32, num_experts=4, num_experts_per_tok=2, norm_topk_prob=True
    ),
    "qwen2": Qwen2Config(**SHAPE, tie_word_embeddings=True),
    "llama": LlamaConfig(**SHAPE, rope_parameters={"rope_type": "default", "rope_theta": 500000.0}),
    "llama3_rope": LlamaConfig(**SHAPE, rope_parameters=LLAMA3_ROPE),
}


def hf_model(config: PretrainedConfig, folder: Path) -> torch.nn.Module:
    """Random weights with norms and biases that are not trivial."""
    model = AutoModelForCausalLM.from_config(config).float().eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=generator)
            p.copy_(1 + 0.3 * noise if "norm" in name else 0.1 * noise)
    model.save_pretrained(folder)
    return model


@pytest.fixture(scope="module", params=list(MODELS))
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[torch.nn.Module, Path]:
    folder = tmp_path_factory.mktemp(request.param)
    return hf_model(MODELS[request.param], folder), folder


def test_logprobs_of_every_token_equal_those_of_transformers(
    single: Ranks, family: tuple[torch.nn.Module, Path]
) -> None:
    model, folder = family
    arch = ArchitectureConfig.from_hf_config(folder)
    chunks = build_model(arch, ParallelConfig())
    load_hf(chunks, arch, folder)
    trainer = build_trainer(chunks, arch, ParallelConfig(), OptimizerConfig(), single)
    samples = sequences(0, (40, 25))
    batch = PackedBatch.from_sequences(samples)
    everything = torch.arange(VOCAB).expand(batch.num_tokens, VOCAB)
    [ours] = forward_logprobs(trainer, [replace(batch, labels_T=everything)])
    with torch.no_grad():
        logits = [model(torch.tensor(s).unsqueeze(0)).logits[0] for s in samples]
    theirs = torch.cat(logits).log_softmax(-1)
    assert (ours - theirs).abs().max() < 1e-4
    assert torch.equal(ours.argmax(-1), theirs.argmax(-1))


def test_a_round_trip_is_bitwise_and_transformers_loads_it(
    single: Ranks, family: tuple[torch.nn.Module, Path], tmp_path: Path
) -> None:
    model, folder = family
    arch = ArchitectureConfig.from_hf_config(folder)
    chunks = build_model(arch, ParallelConfig())
    load_hf(chunks, arch, folder)
    export_hf(chunks, arch, tmp_path / "out")
    before, after = load_file(folder / "model.safetensors"), load_file(tmp_path / "out" / "model.safetensors")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert ArchitectureConfig.from_hf_config(tmp_path / "out") == arch
    reloaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out").float().eval()
    ids = torch.tensor(sequences(1, (20,))[0]).unsqueeze(0)
    with torch.no_grad():
        assert torch.equal(model(ids).logits, reloaded(ids).logits)


@pytest.fixture(scope="module")
def qwen3(single: Ranks, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plain")
    hf_model(MODELS["qwen3"], folder)
    return folder


def test_large_models_are_exported_in_several_files(
    qwen3: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("megatron_osim.convert.export.MAX_FILE_BYTES", 100_000)
    arch = ArchitectureConfig.from_hf_config(qwen3)
    chunks = build_model(arch, ParallelConfig())
    load_hf(chunks, arch, qwen3)
    export_hf(chunks, arch, tmp_path / "out")
    files = sorted((tmp_path / "out").glob("*.safetensors"))
    assert len(files) > 2
    merged = {k: v for f in files for k, v in load_file(f).items()}
    original = load_file(qwen3 / "model.safetensors")
    assert all(torch.equal(original[k], merged[k]) for k in original)
    load_hf(chunks, arch, tmp_path / "out")
    AutoModelForCausalLM.from_pretrained(tmp_path / "out")


def test_an_export_carries_the_tokenizer(qwen3: Path, corpus: Corpus, tmp_path: Path) -> None:
    arch = ArchitectureConfig.from_hf_config(qwen3)
    chunks = build_model(arch, ParallelConfig())
    load_hf(chunks, arch, qwen3)
    export_hf(chunks, arch, tmp_path / "out", corpus.tokenizer)
    exported, original = (tmp_path / "out" / "tokenizer.json"), corpus.tokenizer / "tokenizer.json"
    assert exported.read_bytes() == original.read_bytes()


def test_a_missing_or_misshaped_tensor_is_named(qwen3: Path, tmp_path: Path) -> None:
    arch = ArchitectureConfig.from_hf_config(qwen3)
    chunks = build_model(arch, ParallelConfig())
    tensors = load_file(qwen3 / "model.safetensors")
    name = "model.layers.1.mlp.up_proj.weight"
    save_file({k: v for k, v in tensors.items() if k != name}, tmp_path / "model.safetensors")
    with pytest.raises(DataError, match=name):
        load_hf(chunks, arch, tmp_path)
    save_file({**tensors, name: torch.zeros(3, 3)}, tmp_path / "model.safetensors")
    with pytest.raises(DataError, match=f"{name} has shape"):
        load_hf(chunks, arch, tmp_path)
    with pytest.raises(UsageError, match=r"no model\.safetensors"):
        load_hf(chunks, arch, tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "gpt2"}, "unknown model_type"),
        ({"hidden_act": "gelu"}, "hidden_act"),
        ({"attention_bias": True}, "biases"),
        ({"use_sliding_window": True}, "sliding"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1.0}}, "rope_type"),
    ],
)
def test_what_the_model_cannot_express_is_refused(qwen3: Path, tmp_path: Path, change: dict, message: str) -> None:
    write_json(tmp_path / "config.json", read_json(qwen3 / "config.json") | change)
    with pytest.raises(UsageError, match=message):
        ArchitectureConfig.from_hf_config(tmp_path)
