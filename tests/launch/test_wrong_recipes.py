"""Recipes that cannot run: each is refused with the reason, and what the plan offers instead does run."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from common.config import load
from common.errors import ConfigError
from launch import cli
from launch.kinds import shipped
from launch.plan.cluster import ClusterConfig
from launch.plan.recipes import plan_recipe

DENSE = shipped("scale/qwen3-8b-1x8.yaml")
MOE = shipped("scale/qwen3-30b-a3b-1x8.yaml")
QWEN3_8B = shipped("architectures/qwen3-8b.yaml")
NODE = ClusterConfig()
RL = {
    "model": "models/qwen3-8b",
    "tasks": [{"task": "hitom", "rows": 100}],
    "steps": 10,
    "precision": "bf16",
    "max_tokens_per_micro_batch": 16384,
    "sampling": {"max_tokens": 4096, "max_context_tokens": 8192},
    "rollout": {"kind": "sglang", "servers": 4, "max_context": 8192, "max_total_tokens": 131072},
    "parallel": {"tensor": 4, "sequence_parallel": True},
}


@dataclass(frozen=True)
class Wrong:
    """Overrides of a good recipe, and what the refusal says."""

    text: str
    reason: str
    recipe: Path | None = DENSE
    """None: the RL recipe above."""

    @property
    def overrides(self) -> tuple[str, ...]:
        return tuple(self.text.split())


CASES = {
    "tensor does not divide the heads": Wrong(
        "parallel.tensor=3",
        "num_attention_heads 32 is not a multiple",
    ),
    "tensor over the key-value heads": Wrong(
        "parallel.tensor=16",
        "num_key_value_heads 8 is not a multiple",
    ),
    "layers in unequal stages": Wrong(
        "parallel.tensor=1 parallel.sequence_parallel=false parallel.pipeline=8",
        "36 layers cannot be split",
    ),
    "interleaving without a pipeline": Wrong(
        "parallel.virtual_pipeline=2",
        "virtual_pipeline needs pipeline > 1",
    ),
    "interleaving with the wrong number of micro-batches": Wrong(
        "parallel.tensor=4 parallel.pipeline=2 parallel.virtual_pipeline=2 global_batch=1",
        "multiple of 2 micro-batches",
    ),
    "more ranks in a replica than in the cluster": Wrong(
        "parallel.tensor=8 parallel.pipeline=2",
        "8 ranks do not split",
    ),
    "batch that replicas cannot share": Wrong(
        "global_batch=7",
        "global_batch 7 is not a multiple of 2 replicas",
    ),
    "sequence parallelism alone": Wrong(
        "parallel.tensor=1",
        "sequence_parallel needs tensor > 1",
    ),
    "experts in a dense model": Wrong(
        "parallel.expert=2",
        "expert > 1 needs a model with experts",
    ),
    "experts that do not divide": Wrong(
        "parallel.expert=3",
        "num_experts 128 is not a multiple of expert = 3",
        MOE,
    ),
    "experts over more ranks than there are": Wrong(
        "parallel.expert=8",
        "expert = 8 must divide",
        MOE,
    ),
    "experts without sequence parallelism": Wrong(
        "parallel.sequence_parallel=false",
        "experts with tensor > 1 need sequence_parallel",
        MOE,
    ),
    "too little memory": Wrong(
        "parallel.tensor=1 parallel.sequence_parallel=false",
        "GiB more than the GPU has",
    ),
    "sequence too long for the memory": Wrong(
        "data.sequence_length=40960 parallel.tensor=2",
        "GiB more than the GPU has",
    ),
    "sequence longer than the model": Wrong(
        "data.sequence_length=131072",
        "more than the model's 40960 positions",
    ),
    "micro-batch too large for the actor": Wrong(
        "max_tokens_per_micro_batch=131072",
        "actor's fullest rank needs",
        None,
    ),
    "no GPU left for the actor": Wrong(
        "rollout.servers=8",
        "leave none of 8 for the actor",
        None,
    ),
    "server that spans no whole node": Wrong(
        "rollout.servers=1 rollout.tensor_parallel=3",
        "does not divide a node's 8 GPUs",
        None,
    ),
    "cache too small for a sequence": Wrong(
        "rollout.max_context=40960 rollout.mem_fraction=0.25",
        "GiB of key-value cache",
        None,
    ),
    "context of the episodes over the servers'": Wrong(
        "sampling.max_context_tokens=16384",
        "more than rollout.max_context 8192",
        None,
    ),
    "cache larger than the card": Wrong(
        "rollout.max_total_tokens=4000000",
        "whose cache fits beside the weights",
        None,
    ),
}


def recipe_of(case: Wrong, folder: Path) -> tuple[str, Path]:
    if case.recipe is not None:
        return "midtrain", case.recipe
    path = folder / "rl.yaml"
    path.write_text(yaml.safe_dump(RL))
    return "rl", path


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_wrong_recipe_is_refused_and_its_first_alternative_runs(case: Wrong, tmp_path: Path) -> None:
    kind, path = recipe_of(case, tmp_path)
    architecture = QWEN3_8B if kind == "rl" else None

    def planned(overrides: tuple[str, ...], cluster: ClusterConfig = NODE):  # type: ignore[no-untyped-def]
        return plan_recipe(kind, path, overrides, cluster, architecture=architecture, exact=False)

    assert not planned(()).refused
    refused = planned(case.overrides)
    assert any(case.reason in problem for problem in refused.problems), refused.problems
    best = refused.alternatives[0]
    grown = NODE.model_copy(update={"nodes": best.nodes})
    assert not planned((*case.overrides, *best.overrides), grown).refused


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (("steps=null",), "steps: Input should be a valid integer"),
        (("optimizer.learning_rate=1",), "optimizer.learning_rate: unknown key"),
        (("global_batc=64",), "did you mean 'global_batch'"),
        (("precision=fp16",), "precision: Input should be 'fp32' or 'bf16'"),
        (("init_from=models/qwen3-8b",), "exactly one of init_from and architecture"),
    ],
)
def test_invalid_key_is_refused_with_its_place_and_what_is_possible(overrides: tuple[str, ...], reason: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(reason)):
        plan_recipe("midtrain", DENSE, overrides, NODE, exact=False)


def test_missing_key_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("steps: 3\narchitecture: null\n")
    with pytest.raises(ConfigError, match="global_batch: missing; add it to the recipe"):
        plan_recipe("midtrain", path, (), NODE, exact=False)


def test_missing_data_is_refused_when_asked_and_the_fix_makes_it(capsys: pytest.CaptureFixture[str]) -> None:
    line = ["plan", str(DENSE), "--no-exact"]
    with pytest.raises(SystemExit) as ended:
        cli.run([*line, "--with-data"])
    shown = capsys.readouterr().out
    assert ended.value.code == 3
    assert "data/corpus/train" in shown and "osim data prepare" in shown
    with pytest.raises(SystemExit) as ended:
        cli.run(line)
    assert ended.value.code == 0


def test_unknown_task_names_its_neighbour_and_judges_need_an_endpoint(tmp_path: Path) -> None:
    path = tmp_path / "rl.yaml"
    path.write_text(yaml.safe_dump(RL | {"tasks": [{"task": "hitomm"}]}))
    report = plan_recipe("rl", path, (), NODE, architecture=QWEN3_8B, exact=False)
    assert any("did you mean hitom" in problem for problem in report.problems)


def test_cluster_file_is_closed_too(tmp_path: Path) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text("node: 3\n")
    with pytest.raises(ConfigError, match="did you mean 'nodes'"):
        load(ClusterConfig, path)
