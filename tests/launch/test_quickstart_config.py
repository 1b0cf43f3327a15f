"""The quickstart's recipes, and that each of their sections is a recipe of the real command."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.config import dump_yaml, load, validate
from common.errors import ConfigError
from data_tools.config import PrepareConfig
from launch.evaluation import EvalRunConfig
from launch.kinds import shipped
from launch.quickstart.config import QuickstartConfig, resolve
from launch.quickstart.pipeline import Pipeline
from launch.quickstart.stages import stages
from megatron_osim.config import MidtrainConfig
from rl.config import RLConfig

RECIPES = ("quickstart.yaml", "quickstart-fast.yaml")


@pytest.mark.parametrize("name", RECIPES)
def test_shipped_recipes_describe_what_the_issue_asks(name: str, tmp_path: Path) -> None:
    config = resolve(shipped(name), (), tmp_path)
    architecture = config.midtrain.resolve_architecture()
    assert 2e6 <= architecture.num_parameters <= 10e6
    assert architecture.model_type == "qwen3"
    assert config.midtrain.parallel.tensor == config.midtrain_ranks == 2
    assert list(config.rl) == ["grpo", "verbal_feedback", "opd"]
    assert [rl.tasks[0].algorithm.name for rl in config.rl.values()] == list(config.rl)
    assert all(rl.gates.max_logprob_gap == 1e-4 for rl in config.rl.values())
    read_back = tmp_path / "config.yaml"
    read_back.write_text(dump_yaml(config))
    assert load(QuickstartConfig, read_back) == config


def test_each_section_is_a_recipe_of_the_real_command(tmp_path: Path) -> None:
    config = resolve(shipped("quickstart.yaml"), (), tmp_path)
    model = f"model={config.midtrain.data.sources[0].prefixes[0]}"
    sources = f"data.sources=[{{name: a, prefixes: [{tmp_path}/x]}}]"
    midtrain = load(MidtrainConfig, shipped("quickstart/midtrain.yaml"), [sources])
    assert midtrain.architecture == config.midtrain.architecture
    inputs = [f"inputs=[{{glob: {tmp_path}}}]", f"tokenizer={tmp_path}", f"output={tmp_path}"]
    assert load(PrepareConfig, shipped("quickstart/prepare.yaml"), inputs).sources == config.prepare.sources
    for name in config.rl:
        assert load(RLConfig, shipped(f"quickstart/{name}.yaml"), [model]).tasks == config.rl[name].tasks
    evaluation = load(EvalRunConfig, shipped("quickstart/eval.yaml"), [f"model.path={tmp_path}"])
    assert evaluation.suite == config.eval.suite
    assert evaluation.name == tmp_path.name


def test_problems_of_every_section_come_at_once_with_their_place(tmp_path: Path) -> None:
    wrong = ["midtrain.stepz=3", "rl.grpo.optimizer.lr=-1", "corpus.story=2"]
    with pytest.raises(ConfigError) as caught:
        resolve(shipped("quickstart.yaml"), wrong, tmp_path)
    text = str(caught.value)
    assert "midtrain.stepz: unknown key; did you mean 'steps'?" in text
    assert "rl.grpo.optimizer.lr" in text and "corpus.story: unknown key; did you mean 'stories'?" in text


def test_vocabulary_of_model_and_tokenizer_must_agree(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"must equal tokenizer\.vocab_size 300"):
        resolve(shipped("quickstart.yaml"), ["tokenizer.vocab_size=300"], tmp_path)


def test_a_changed_section_changes_only_its_stage_and_what_builds_on_it(tmp_path: Path) -> None:
    def hashes(*overrides: str) -> dict[str, str]:
        config = resolve(shipped("quickstart.yaml"), overrides, tmp_path)
        return Pipeline(tmp_path, stages(config, tmp_path)).hashes()

    base, changed = hashes(), hashes("rl.grpo.steps=99")
    different = {name for name in base if base[name] != changed[name]}
    assert different == {"rl-grpo", "eval-grpo", "report"}
    changed = hashes("midtrain.steps=7")
    different = {name for name in base if base[name] != changed[name]}
    assert not different & {"corpus", "tokenizer", "shards"}
    assert {"midtrain", "export", "eval-midtrained", "engine", "rl-grpo", "report"} <= different


def test_evaluation_asks_the_same_whoever_is_asked(tmp_path: Path) -> None:
    raw = {"suite": "hitom_mini", "limit": 5, "model": {"path": str(tmp_path / "a")}}
    first = validate(EvalRunConfig, raw, where="")
    second = validate(EvalRunConfig, raw | {"model": {"path": str(tmp_path / "b")}}, where="")
    assert first.questions == second.questions and first.questions.sha == second.questions.sha
    assert first.name == "a" and second.name == "b"
