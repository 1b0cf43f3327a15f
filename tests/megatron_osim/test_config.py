"""Configuration and layout: everything that is wrong is said at once, and what trains wrongly in silence is
refused."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from common.config import dump_yaml, load, validate
from common.errors import ConfigError
from megatron_osim.config import ArchitectureConfig, Fp8Config, MidtrainConfig, OptimizerConfig, ParallelConfig
from megatron_osim.layout import Capability, check_layout, layout_violations

CPU = Capability()
GPU = Capability(cuda=True)
MINIMAL = {
    "architecture": {
        "vocab_size": 300,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 4,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 16,
    },
    "data": {"sources": [{"name": "a", "prefixes": ["x"]}], "sequence_length": 128},
    "steps": 3,
    "global_batch": 4,
}


def arch(**changes: object) -> ArchitectureConfig:
    return ArchitectureConfig.model_validate(MINIMAL["architecture"] | changes)


def violations(world_size: int = 8, capability: Capability = CPU, batch: int = 8, **parallel: object) -> list[str]:
    config = ParallelConfig.model_validate(parallel)
    return layout_violations(arch(), config, world_size=world_size, capability=capability, global_batch=batch)


def test_all_violations_are_reported_at_once() -> None:
    with pytest.raises(ConfigError) as e:
        check_layout(
            arch(num_hidden_layers=5, num_key_value_heads=2),
            ParallelConfig(tensor=4, pipeline=2, virtual_pipeline=2, batch_p2p_comm=True, context_comm="a2a"),
            world_size=12,
            capability=CPU,
            global_batch=8,
        )
    text = str(e.value)
    for part in ("12 ranks", "num_key_value_heads 2", "5 layers", "wrong numbers", "Transformer Engine"):
        assert part in text
    assert len(e.value.violations) == 5


@pytest.mark.parametrize("legal", [{}, {"tensor": 2, "pipeline": 2, "virtual_pipeline": 2}, {"tensor": 4}])
def test_legal_layouts_are_accepted(legal: dict) -> None:
    assert violations(**legal) == []


def test_interleaving_over_two_stages_with_batched_messages_is_refused() -> None:
    [text] = violations(pipeline=2, virtual_pipeline=2, batch_p2p_comm=True)
    assert "no tags" in text


def test_overlapped_messages_whose_buffers_are_freed_are_refused_over_gloo_only() -> None:
    setting = {"pipeline": 2, "virtual_pipeline": 2, "overlap_p2p_comm": True}
    [text] = violations(**setting)
    assert "being sent" in text
    assert violations(**setting, deallocate_pipeline_outputs=False) == []
    assert violations(**setting, capability=GPU) == []


TE = Capability(cuda=True, transformer_engine=True)
EXPERTS = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 32}


def test_context_parallelism_runs_anywhere_but_its_exchange_needs_transformer_engine() -> None:
    assert violations(context=2) == []
    [text] = violations(context=2, context_comm="a2a")
    assert "Transformer Engine" in text
    assert violations(context=2, context_comm="a2a", capability=TE) == []
    [text] = violations(context=8, context_comm="a2a", capability=TE)
    assert "do not split over context" in text


@pytest.mark.parametrize("capability", [CPU, GPU])
def test_fp8_without_transformer_engine_is_refused(capability: Capability) -> None:
    def found(capability: Capability, **changes: object) -> list[str]:
        layout, size = ParallelConfig(), {"world_size": 1, "capability": capability}
        return layout_violations(arch(**changes), layout, fp8=Fp8Config(), **size)

    [text] = found(capability)
    assert "fp8 needs Transformer Engine" in text
    assert found(TE) == []
    assert "multiple of 16" in found(TE, intermediate_size=120)[0]


def test_fp8_needs_bf16() -> None:
    with pytest.raises(ConfigError, match="fp8 needs precision bf16"):
        validate(MidtrainConfig, MINIMAL | {"fp8": {}}, where="test")
    assert validate(MidtrainConfig, MINIMAL | {"fp8": {}, "precision": "bf16"}, where="test").fp8 == Fp8Config()


def test_experts_are_spread_over_context_and_data_ranks_and_not_cut_on_cpu() -> None:
    moe = arch(model_type="qwen3_moe", moe=EXPERTS)

    def found(world_size: int, capability: Capability = CPU, **parallel: object) -> list[str]:
        config = ParallelConfig.model_validate(parallel)
        return layout_violations(moe, config, world_size=world_size, capability=capability)

    assert found(4, expert=4) == found(4, expert=4, context=2) == []
    assert "not a multiple of expert" in found(3, expert=3)[0]
    assert "must divide the 2 ranks" in found(2, expert=4)[0]
    assert "gloo cannot do" in found(2, tensor=2, sequence_parallel=True)[0]
    assert found(2, TE, tensor=2, sequence_parallel=True) == []
    assert "need sequence_parallel" in found(2, TE, tensor=2)[0]
    assert "model with experts" in violations(expert=2)[0]


def test_steps_or_epochs_are_given_and_not_both() -> None:
    for changes in ({"epochs": 1.0}, {"steps": 0}):
        with pytest.raises(ConfigError, match="exactly one of steps and epochs"):
            validate(MidtrainConfig, MINIMAL | changes, where="test")
    assert validate(MidtrainConfig, MINIMAL | {"steps": 0, "epochs": 0.5}, where="test").epochs == 0.5


def test_a_batch_that_does_not_split_is_refused() -> None:
    assert "not a multiple of 8 replicas" in violations(batch=12)[0]
    assert "multiple of 2 micro-batches" in violations(batch=12, pipeline=2, virtual_pipeline=2, world_size=8)[0]


def test_configurations_survive_yaml(tmp_path: Path) -> None:
    config = validate(MidtrainConfig, MINIMAL, where="test")
    (tmp_path / "config.yaml").write_text(dump_yaml(config))
    assert load(MidtrainConfig, tmp_path / "config.yaml") == config


def test_weights_come_from_one_place() -> None:
    with pytest.raises(ConfigError, match="exactly one of init_from and architecture"):
        validate(MidtrainConfig, MINIMAL | {"init_from": "somewhere"}, where="test")


def test_config_modules_import_neither_torch_nor_megatron() -> None:
    code = "import sys, megatron_osim.config, megatron_osim.layout; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0


def test_learning_rate_warms_up_and_decays() -> None:
    config = OptimizerConfig(lr=1.0, min_lr=0.1, warmup_steps=10)
    rates = [config.learning_rate(step, 110) for step in range(111)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == rates[10] == 1.0
    assert rates[60] == pytest.approx(0.55)
    assert rates[110] == pytest.approx(0.1)
    assert all(a >= b for a, b in pairwise(rates[10:]))


def test_parameter_count_of_qwen3_8b() -> None:
    qwen3_8b = ArchitectureConfig(
        vocab_size=151936,
        hidden_size=4096,
        intermediate_size=12288,
        num_hidden_layers=36,
        num_attention_heads=32,
        num_key_value_heads=8,
        head_dim=128,
    )
    assert qwen3_8b.num_parameters == 8_190_735_360
    # peers.md C1: 45.4 GFLOP per token plus 0.885 MFLOP times the sequence length
    assert qwen3_8b.matmul_flops_per_token == pytest.approx(45.4e9, rel=0.01)
    assert qwen3_8b.flops_per_token(8192) == pytest.approx(52.7e9, rel=0.01)
