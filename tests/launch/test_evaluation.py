"""An evaluation as `osim eval run` composes it."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Any

import pytest
import uvloop

from common.errors import UsageError
from common.files import read_json, write_json
from data_tools.renderer import Renderer
from data_tools.tokenizer import CHATML_JINJA
from envs.client.config import Endpoint
from envs.ledger import LedgerReader
from eval.config import DecodingConfig
from eval.results import LowCoverage, Results
from launch.conversion import hf_to_megatron
from launch.evaluation import EvalModelConfig, EvalRunConfig, dry_run, evaluate
from launch.evaluation.model import export
from launch.evaluation.run import _stopping
from megatron_osim.config import ParallelConfig
from rl.rollout.config import RolloutConfig
from rl.rollout.server import SGLangServer
from tests.rl.rollout.conftest import write_checkpoint


def test_a_failed_coverage_gate_leaves_the_results_that_there_are(tmp_path: Path) -> None:
    model = write_checkpoint(tmp_path / "hf", seed=1)
    no_time = RolloutConfig(kind="embedded", generate_timeout_s=1e-4)
    config = EvalRunConfig(
        suite="hitom_mini",
        limit=2,
        attempts=1,
        baseline_rows=0,
        model=EvalModelConfig(path=model, engine=no_time),
    )
    with pytest.raises(LowCoverage) as caught:
        evaluate(config, tmp_path / "run")
    assert caught.value.exit_code == 3
    saved = Results.load(tmp_path / "run")
    assert saved == caught.value.results
    assert saved.coverage < config.min_coverage and saved.tasks[0].unscored


VOWELS = "tests.eval.toy_tasks:vowels"


def texts(run: Path) -> dict[str, str]:
    with LedgerReader(run / "ledger") as ledger:
        return {r.episode.row.id: r.episode.says[0].text for r in ledger.episodes()}


def greedy(path: Path, **engine: Any) -> EvalRunConfig:
    served = EvalModelConfig(path=path, engine=RolloutConfig(**engine)) if engine else EvalModelConfig(path=path)
    decoding = DecodingConfig(max_tokens=16)
    return EvalRunConfig(suite=VOWELS, limit=6, baseline_rows=0, model=served, decoding=decoding)


@pytest.mark.slow
def test_a_megatron_checkpoint_is_exported_and_scores_as_the_weights_it_was_made_from(tmp_path: Path) -> None:
    model = write_checkpoint(tmp_path / "hf", seed=3)
    step = hf_to_megatron(model, tmp_path / "megatron", ParallelConfig(), "fp32")
    by_hf = evaluate(greedy(model), tmp_path / "a")
    by_megatron = evaluate(greedy(step.parent), tmp_path / "b")
    assert (tmp_path / "b" / "model" / "config.json").is_file()
    assert texts(tmp_path / "a") == texts(tmp_path / "b") and by_megatron.coverage == 1.0
    assert [i.value for i in by_hf.tasks[0].items] == [i.value for i in by_megatron.tasks[0].items]


def test_a_newer_checkpoint_of_the_same_run_is_not_taken_for_the_one_that_was_exported(tmp_path: Path) -> None:
    exported, steps = tmp_path / "run" / "model", [tmp_path / "step-00000001", tmp_path / "step-00000002"]
    exported.mkdir(parents=True)
    (exported / "config.json").write_text("{}")
    (exported / "exported_from").write_text(str(steps[0]))
    assert export(steps[0], exported) == exported
    with pytest.raises(UsageError, match="newest checkpoint is step-00000002"):
        export(steps[1], exported)


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_signals_mean_after_an_evaluation_what_they_meant_before(run) -> None:
    noted: list[int] = []

    async def stopped_by_a_signal() -> bool:
        with _stopping() as asked:
            signal.raise_signal(signal.SIGTERM)
            await asyncio.sleep(0.01)
            return asked()

    original = signal.signal(signal.SIGTERM, lambda number, _: noted.append(number))
    try:
        assert run(stopped_by_a_signal()) and noted == []
        signal.raise_signal(signal.SIGTERM)
        assert noted == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, original)


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="neither a Hugging Face folder"):
        evaluate(greedy(tmp_path), tmp_path / "run")


def test_the_dry_run_tells_of_prompts_that_do_not_fit(tmp_path: Path) -> None:
    model = write_checkpoint(tmp_path / "hf", seed=3)
    config = greedy(model, kind="embedded", max_context=64).model_copy(update={"suite": "hitom", "limit": 1})
    with pytest.raises(UsageError, match=r"do not fit a context of 64.*raise model.engine.max_context"):
        dry_run(config, tmp_path / "run", lambda line: None)


@pytest.mark.slow
@pytest.mark.sglang
def test_sglang_behind_its_own_api_scores_as_sglang_by_token_ids(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = write_checkpoint(tmp_path / "hf", seed=3)
    # As a real checkpoint has: the template, and the end token at which a server stops by itself.
    (model / "chat_template.jinja").write_text(CHATML_JINJA)
    for name in ("config.json", "generation_config.json"):
        settings = read_json(model / name)
        write_json(model / name, {**settings, "eos_token_id": Renderer.load(model).end_id})
    server = SGLangServer(model, RolloutConfig(kind="sglang", max_context=512), tmp_path / "logs")
    server.start()
    try:
        asyncio.run(server.wait_ready())
        monkeypatch.setenv("SERVE_KEY", server.api_key)
        by_url = greedy(model, kind="sglang", urls=(server.url,), api_key_variable="SERVE_KEY")
        by_ids = evaluate(by_url, tmp_path / "ids")
        endpoint = Endpoint(model="default", base_url=f"{server.url}/v1", api_key_variable="SERVE_KEY")
        asked = {"model": EvalModelConfig(endpoint=endpoint), "name": "api"}
        by_api = evaluate(greedy(model).model_copy(update=asked), tmp_path / "api")
    finally:
        server.kill()
    assert texts(tmp_path / "ids") == texts(tmp_path / "api")
    assert [i.value for i in by_ids.tasks[0].items] == [i.value for i in by_api.tasks[0].items]
