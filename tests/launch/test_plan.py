"""The planner's bytes against a worked example of Qwen3-8B, and its refusals."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.config import load
from common.errors import UsageError
from common.run_folder import RunFolder
from launch import cli
from launch.kinds import shipped
from launch.plan.calibration import compare
from launch.plan.calls import loads_per_step
from launch.plan.cluster import GIB, ClusterConfig
from launch.plan.memory import Workload, kv_bytes_per_token, layer_bytes_per_token, rank_memory, stage_parameters
from launch.plan.midtrain import plan_midtrain
from launch.plan.rl import BUCKET_BYTES as PLANNED_BUCKET
from launch.plan.rl import plan_rl
from launch.plan.training import TrainingWork, forward_seconds, step_seconds
from launch.submit.config import SlurmConfig
from megatron_osim.config import ArchitectureConfig, LoRAConfig, MidtrainConfig, ParallelConfig
from rl.config import RLConfig
from rl.rollout.base import BUCKET_BYTES

QWEN3_8B = load(ArchitectureConfig, shipped("architectures/qwen3-8b.yaml"))
QWEN3_30B = load(ArchitectureConfig, shipped("architectures/qwen3-30b-a3b.yaml"))


def memory(recompute: str = "none", tensor: int = 2, context: int = 2) -> dict[str, float]:
    """GiB by component on 64 GPUs, 24,576 tokens, bf16, sequence parallel."""
    parallel = ParallelConfig(tensor=tensor, context=context, sequence_parallel=tensor > 1, recompute=recompute)  # type: ignore[arg-type]
    found = rank_memory(Workload(QWEN3_8B, parallel, 64, 24_576, 1, "bf16"))
    names = ("weights", "gradients", "optimizer", "activations", "loss")
    return {name: round(getattr(found, name) / GIB, 2) for name in names}


def test_worked_example_of_qwen3_8b_on_64_gpus() -> None:
    assert QWEN3_8B.num_parameters == 8_190_735_360
    assert layer_bytes_per_token(QWEN3_8B, ParallelConfig()) == 126_976
    selective, full = memory(), memory("full")
    rows, hidden = 151_936 // 2, 4096
    loss = (2**26 * (5 * 4 + 2) + rows * hidden * (4 + 2)) / GIB
    assert selective == {
        "weights": 7.63, "gradients": 15.26, "optimizer": 1.43, "activations": 26.16, "loss": round(loss, 2),
    }  # fmt: skip
    assert full["activations"] == pytest.approx(1.69 + 0.73, abs=0.01)


@pytest.mark.parametrize(
    ("tensor", "context", "selective", "full"),
    [
        (2, 1, 87.1, 39.6),
        (2, 4, 40.0, 28.1),
        (4, 1, 44.3, 20.5),
        (4, 2, 28.6, 16.7),
        (1, 4, 78.6, 54.8),
        (1, 8, 62.9, 51.0),
    ],
)
def test_other_layouts_of_the_worked_example(tensor: int, context: int, selective: float, full: float) -> None:
    # The example holds all logits at once (bf16, and fp32 for the softmax); our loss takes them a chunk at a time.
    whole_logits = 24_576 / context * 151_936 / tensor * (2 + 4) / GIB

    def without_loss(recompute: str) -> float:
        found = memory(recompute, tensor, context)
        return sum(found.values()) - found["loss"]

    assert without_loss("none") + whole_logits == pytest.approx(selective, abs=0.15)
    assert without_loss("full") + whole_logits == pytest.approx(full, abs=0.15)


@pytest.mark.parametrize("arch", [QWEN3_8B, QWEN3_30B], ids=["dense", "moe"])
def test_shards_of_the_ranks_add_up_to_the_model(arch: ArchitectureConfig) -> None:
    expert = 4 if arch.moe else 1
    parallel = ParallelConfig(tensor=2, pipeline=4, expert=expert)
    dense = experts = 0
    for stage in range(4):
        a, b = stage_parameters(arch, parallel, stage)
        dense, experts = dense + 2 * a, experts + 2 * expert * b
    # Norms and routers are whole on both tensor parallel ranks.
    layer = 2 * arch.hidden_size + 2 * arch.head_dim + (arch.hidden_size * arch.moe.num_experts if arch.moe else 0)
    replicated = arch.num_hidden_layers * layer + arch.hidden_size
    padding = 2 * (arch.padded_vocab_size - arch.vocab_size) * arch.hidden_size
    assert dense + experts == arch.num_parameters + replicated + padding


def test_tied_output_layer_is_counted_once_per_stage_that_holds_it() -> None:
    tied = QWEN3_8B.model_copy(update={"tie_word_embeddings": True})
    table = QWEN3_8B.padded_vocab_size * QWEN3_8B.hidden_size
    one = ParallelConfig()
    assert stage_parameters(QWEN3_8B, one, 0)[0] - stage_parameters(tied, one, 0)[0] == table
    two = ParallelConfig(pipeline=2)
    assert [stage_parameters(tied, two, s) for s in (0, 1)] == [stage_parameters(QWEN3_8B, two, s) for s in (0, 1)]


def test_kv_cache_of_a_token_and_its_split_over_tensor_parallel_ranks() -> None:
    assert kv_bytes_per_token(QWEN3_8B) == 147_456
    assert kv_bytes_per_token(QWEN3_8B, tensor=2) == 73_728
    assert kv_bytes_per_token(QWEN3_8B, tensor=16) == kv_bytes_per_token(QWEN3_8B, tensor=8)


@pytest.mark.parametrize("recipe", sorted(shipped("scale").glob("*.yaml")), ids=lambda p: p.stem)
def test_shipped_recipes_fit_the_clusters_they_are_named_for(recipe: Path) -> None:
    cluster = load(ClusterConfig, shipped(f"clusters/h100-{recipe.stem.rsplit('-', 1)[1]}.yaml"))
    found = plan_midtrain(load(MidtrainConfig, recipe), cluster)
    assert found.chosen is not None and found.chosen.verdict == "fits"
    assert not found.report.refused


@pytest.mark.parametrize("recipe", sorted(shipped("").glob("midtrain-*qwen3*.yaml")), ids=lambda p: p.stem)
def test_shipped_midtraining_recipes_fit_eight_nodes_and_those_of_osim_one(recipe: Path) -> None:
    nodes = 1 if recipe.stem.startswith("midtrain-osim") else 8
    cluster = load(ClusterConfig, shipped(f"clusters/h100-{nodes}x8.yaml"))
    assert not plan_midtrain(load(MidtrainConfig, recipe), cluster).report.refused


@pytest.mark.slow
def test_plan_counts_on_the_trainer_itself(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.run(["plan", str(shipped("scale/qwen3-8b-1x8.yaml"))])
    shown = capsys.readouterr().out
    assert ended.value.code == 0, shown
    assert "counted on the trainer" in shown


def test_time_limit_that_ends_before_a_step_is_saved_is_refused() -> None:
    config = load(MidtrainConfig, shipped("scale/qwen3-8b-1x8.yaml"))
    cluster = ClusterConfig(slurm=SlurmConfig(time="00:03:00", signal_lead_s=60))
    (problem,) = plan_midtrain(config, cluster).report.problems
    assert "ends before one step is saved" in problem
    assert not plan_midtrain(config, ClusterConfig(slurm=SlurmConfig(time="04:00:00"))).report.refused


def test_finished_run_is_compared_with_its_prediction(tmp_path: Path) -> None:
    config = load(MidtrainConfig, shipped("scale/qwen3-8b-1x8.yaml"))
    run = RunFolder.prepare(tmp_path / "run", config)
    planned = plan_midtrain(config, ClusterConfig())
    tokens = config.global_batch * config.data.sequence_length
    seconds = 2 * planned.seconds_per_step
    flops = QWEN3_8B.flops_per_token(config.data.sequence_length) * tokens / seconds
    for step in range(1, 6):
        run.log_metrics(
            step,
            "midtrain",
            {
                "step_s": seconds,
                "tokens_per_s": tokens / seconds,
                "tflops_per_rank": flops / 8 / 1e12,
                "peak_memory_gib": 40.0,
            },
        )
    shown = compare(run.path, ClusterConfig())
    assert "8 ranks, 5 steps" in shown
    assert "assumed 0.4, measured 0.2" in shown
    assert "measured 40.00 GiB" in shown
    with pytest.raises(UsageError, match="no midtraining run"):
        compare(tmp_path, ClusterConfig())


def judged(max_usd: float | None = None) -> RLConfig:
    """A verbal-feedback run on a task that asks a judge and a critic."""
    judge = {"model": "judge", "price": {"prompt": 1.0, "completion": 4.0}}
    return RLConfig.model_validate(
        {
            "model": "models/qwen3-8b",
            "tasks": [{"task": "humanual_chat", "algorithm": {"name": "verbal_feedback"}}],
            "steps": 10,
            "groups_per_step": 4,
            "samples_per_prompt": 8,
            "rollout": {"kind": "sglang", "servers": 4},
            "parallel": {"tensor": 4, "sequence_parallel": True},
            "precision": "bf16",
            "client": {"judge": judge, "critic": judge, "max_usd": max_usd},
        }
    )


def test_judge_calls_of_a_step_are_those_of_its_drafts_and_refinements() -> None:
    loads, unknown = loads_per_step(judged())
    assert not unknown
    assert loads["judge"].calls == 2 * 4 * 8
    assert loads["critic"].calls == 4 * 8
    assert loads["judge"].prompt_tokens > 100 * loads["judge"].calls


def test_run_that_judges_would_cost_more_than_its_budget_is_refused_with_the_steps_it_pays_for() -> None:
    report = plan_rl(judged(max_usd=0.01), ClusterConfig(), QWEN3_8B).report
    (problem,) = report.problems
    assert "more than client.max_usd 0.01, which pays for steps=" in problem
    assert not plan_rl(judged(max_usd=1000.0), ClusterConfig(), QWEN3_8B).report.refused


def test_lora_has_gradients_and_optimizer_of_its_adapters_only() -> None:
    config = judged().model_copy(update={"lora": LoRAConfig(rank=32)})
    found = plan_rl(config, ClusterConfig(), QWEN3_8B)
    adapters = 36 * 32 * sum(a + b for a, b in ((4096, 6144), (4096, 4096), (4096, 2 * 12_288), (12_288, 4096)))
    assert f"{adapters:,} of LoRA adapters are trained" in dict(found.report.lines)["model"]
    assert found.actor is not None
    whole, memory = plan_rl(judged(), ClusterConfig(), QWEN3_8B).actor, found.actor.memory
    assert whole is not None and memory.weights == pytest.approx(whole.memory.weights, rel=0.03)
    # On four tensor ranks no more than the whole adapters, no less than a quarter of them.
    assert adapters < memory.gradients < 4 * adapters < 0.1 * whole.memory.gradients
    assert memory.optimizer == 3 * memory.gradients, "one replica: moments and masters are not sharded"


def test_frozen_weights_cost_no_gradient_and_log_probs_a_forward_pass() -> None:
    def work(lora: LoRAConfig | None) -> TrainingWork:
        return TrainingWork(QWEN3_8B, "bf16", 1, None, 8, lora)

    def seconds(lora: LoRAConfig | None, recompute: str = "none") -> float:
        return step_seconds(work(lora), ParallelConfig(recompute=recompute), ClusterConfig(), 1e6)

    forward = forward_seconds(work(None), ParallelConfig(), ClusterConfig(), 1e6)
    assert seconds(None) == pytest.approx(3 * forward)
    assert seconds(None, "full") == pytest.approx(4 * forward)
    # In segments of one token there is next to no attention, whose backward pass LoRA does not shorten.
    assert seconds(LoRAConfig()) == pytest.approx(2 * forward, rel=1e-3)
    assert seconds(LoRAConfig(), "full") == pytest.approx(3 * forward, rel=1e-3)


def test_lora_on_experts_is_refused_before_anything_runs() -> None:
    report = plan_rl(judged().model_copy(update={"lora": LoRAConfig()}), ClusterConfig(), QWEN3_30B).report
    assert "LoRA on experts is not built: leave lora out" in report.problems


def test_a_task_under_a_profile_that_asks_no_judge_is_planned_without_one() -> None:
    def problems(profile: str) -> list[str]:
        changed = {"client": None, "tasks": [{"task": "tau_usi", "rows": 8, "profile": profile}]}
        config = RLConfig.model_validate({**judged().model_dump(), **changed})
        return [p for p in plan_rl(config, ClusterConfig(), QWEN3_8B).report.problems if "asks a" in p]

    assert problems("strict") == ["task tau_usi asks a judge: set client.judge.model"]
    assert problems("author") == []


def test_planner_knows_the_bucket_of_a_weight_sync() -> None:
    assert PLANNED_BUCKET == BUCKET_BYTES


def test_a_run_given_in_epochs_is_not_called_one_of_no_steps() -> None:
    cluster = ClusterConfig(slurm=SlurmConfig(time="04:00:00"))
    lines = plan_midtrain(load(MidtrainConfig, shipped("midtrain-osim-qwen3-8b-epoch.yaml")), cluster).report.lines
    assert dict(lines)["run"].startswith("1 epochs;") and "time limit" not in dict(lines)
