"""Exports for other tools: every episode is there, unscored ones are never numbers, hostile text survives."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from envs.types import Episode, FailureReason, Say, Unscored
from eval.aggregate import aggregate
from eval.config import EvalConfig
from eval.export.inspect_log import eval_log, export_inspect
from eval.export.parquet import export_parquet
from eval.export.table import lm_eval_json, markdown
from eval.export.wandb import export_wandb, scalars
from eval.plan import make_plan
from eval.results import Results
from eval.run import play_plan
from tests.eval.samples import MemoryStore, contestants

CONFIG = EvalConfig(suite="hitom", limit=10, baseline_rows=0)


@pytest.fixture(scope="module")
def evaluated() -> tuple[Results, dict[str, Episode]]:
    """Ten episodes, the last of which has no score."""
    plan = make_plan(CONFIG, "m")
    episodes = asyncio.run(play_plan(plan, contestants(0.5, "m"), MemoryStore()))
    last = plan.episodes[-1].key
    failed = Unscored(FailureReason.ENGINE_FAILED, "gone")
    episodes[last] = replace(
        episodes[last], outcomes={"reader": failed}, says=(Say("reader", "<script>\ud800</script>"),)
    )
    return aggregate(plan, episodes, name="x"), episodes


def test_parquet_holds_every_episode_with_what_was_said(evaluated, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    results, episodes = evaluated
    said = {k: e for k, e in episodes.items() if not isinstance(next(iter(e.outcomes.values())), Unscored)}
    assert export_parquet([results], tmp_path / "episodes.parquet", said) == 10
    table = pq.read_table(tmp_path / "episodes.parquet").to_pylist()
    assert {row["task"] for row in table} == {"hitom"} and sum(row["value"] is None for row in table) == 1
    assert all(json.loads(row["said"])[0][0] == "reader" for row in table if row["said"])


def test_an_inspect_log_has_every_sample_and_no_score_for_an_unscored_one(evaluated, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    results, episodes = evaluated
    (path,) = export_inspect(results, tmp_path, episodes)
    log = json.loads(path.read_text())
    assert log["version"] == 2 and log["status"] == "success" and len(log["samples"]) == 10
    unscored = [s for s in log["samples"] if not s["scores"]]
    assert len(unscored) == 1 and "engine_failed" in unscored[0]["error"]["message"]
    scored = log["samples"][0]
    assert scored["messages"][0]["role"] in ("system", "user") and scored["messages"][-1]["role"] == "assistant"
    (metrics,) = log["results"]["scores"]
    assert (
        metrics["unscored_samples"] == 1
        and metrics["metrics"]["accuracy"]["value"] == results.tasks[0].estimate.value
    )


def test_an_inspect_log_is_read_by_inspect(evaluated, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    log = pytest.importorskip("inspect_ai.log", reason="inspect-ai is not installed: pip install inspect-ai")
    results, episodes = evaluated
    (path,) = export_inspect(results, tmp_path, episodes)
    read = log.read_eval_log(str(path))
    assert read.status == "success" and len(read.samples) == 10


def test_the_answer_in_inspect_is_the_policys_last_turn_not_the_partners_and_never_the_prompt(evaluated) -> None:  # type: ignore[no-untyped-def]
    results, episodes = evaluated
    item = results.tasks[0].items[0]
    seat = next(iter(episodes[item.key].views))

    def answer(*says: Say) -> str:
        log = eval_log(
            results, results.tasks[0], {item.key: replace(episodes[item.key], says=says)}, datetime.now(UTC)
        )
        return str(log["samples"][0]["output"]["choices"][0]["message"]["content"])

    assert answer(Say(seat, "mine"), Say("partner", "theirs")) == "mine"
    assert answer() == ""


def test_equal_results_have_equal_identities_in_inspect(evaluated) -> None:  # type: ignore[no-untyped-def]
    results, episodes = evaluated
    logs = [eval_log(results, results.tasks[0], episodes, datetime(2026, 1, d, tzinfo=UTC)) for d in (1, 2)]
    assert logs[0]["eval"]["eval_id"] == logs[1]["eval"]["eval_id"]


def test_the_table_has_lm_evals_columns_and_our_interval(evaluated) -> None:  # type: ignore[no-untyped-def]
    results, _ = evaluated
    head, rule, first, *_ = markdown(results).split("\n")
    assert [c.strip() for c in head.strip("|").split("|")][:7] == [
        *("Tasks", "Version", "Filter", "n-shot", "Metric", "", "Value")
    ]
    assert set(rule) == {"|", "-"} and "90.0%" in first and "[" in first
    made = lm_eval_json(results)
    assert made["n-samples"]["hitom"] == {"original": 10, "effective": 9}
    assert made["results"]["hitom"]["accuracy,strict"] == results.tasks[0].estimate.value  # type: ignore[union-attr]


def test_weights_and_biases_takes_it_offline(evaluated, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    pytest.importorskip("wandb", reason="wandb is not installed: pip install 'osim[wandb]'")
    results, episodes = evaluated
    assert scalars(results)["eval/hitom/coverage"] == 0.9
    report = tmp_path / "report.html"
    report.write_text("<p>report</p>")
    folder = export_wandb(results, tmp_path, episodes, report=report)
    assert list(folder.glob("*.wandb"))
