"""API models, judges and partners: the same scores as local weights, no torch, no recorded call made twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from common.config import load
from common.errors import ConfigError, GateError, OsimError, UsageError
from common.run_folder import RunFolder
from envs import registry
from envs.ledger import LedgerNotStarted, LedgerReader
from eval.plan import roles_of
from eval.results import Results
from launch.evaluation import EvalRunConfig, dry_run, evaluate, rescore_run
from launch.evaluation.config import parse_model
from tests.eval.serving import Served, answering, engine_answers, judge_by_length, say_more
from tests.eval.toy_tasks import JUDGED, TALK, VOWELS
from tests.rl.rollout.conftest import write_checkpoint

ROOT = Path(__file__).resolve().parents[2]
CLI = "from launch.cli import main; main()"


async def parrot(body: dict[str, Any]) -> str:
    return "I would say: " + body["messages"][-1]["content"]


def api_config(served: Served, *more: str, suite: str = VOWELS) -> EvalRunConfig:
    endpoint = json.dumps({"model": "tiny", "base_url": served.url})
    return load(EvalRunConfig, None, [f"suite={suite}", f"model.endpoint={endpoint}", "baseline_rows=0", *more])


def role(name: str, served: Served, **more: object) -> str:
    return f"client.{name}={json.dumps({'model': name, 'base_url': served.url, **more})}"


def values(results: Results) -> dict[str, float | None]:
    return {i.row: i.value for i in results.tasks[0].items}


def says(run: Path) -> dict[str, list[str]]:
    with LedgerReader(run / "ledger") as ledger:
        return {r.episode.row.id: [s.text for s in r.episode.says] for r in ledger.episodes()}


def test_local_weights_and_the_same_weights_behind_an_api_score_the_same(tmp_path: Path) -> None:
    model = write_checkpoint(tmp_path / "hf", seed=5)
    decoding = ("decoding.max_tokens=24", "decoding.temperature=0")
    local = load(EvalRunConfig, None, [f"suite={VOWELS}", f"model.path={model}", "baseline_rows=0", *decoding])
    by_weights = evaluate(local, tmp_path / "local")
    with answering(engine_answers(model)) as served:
        by_api = evaluate(api_config(served, *decoding), tmp_path / "api")
    assert says(tmp_path / "local") == says(tmp_path / "api")
    assert values(by_weights) == values(by_api) and len(set(values(by_api).values())) > 4
    assert by_weights.tasks[0].estimate == by_api.tasks[0].estimate
    assert by_api.model.startswith("api tiny at http://127.0.0.1") and by_api.generated_tokens > 0


def test_an_api_model_is_evaluated_where_torch_cannot_be_imported(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "for name in ('torch', 'transformers', 'megatron', 'sglang', 'vllm'): sys.modules[name] = None\n"
        "from launch.cli import main\n"
        "main()\n"
    )
    with answering(parrot) as served:
        command = ["eval", "run", "--suite", VOWELS, "--model", served.ref, "--out", str(tmp_path / "run"), "limit=4"]
        done = subprocess.run(
            [sys.executable, "-c", program, *command],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert "naturalness" in done.stdout and "✓ the evaluated model answers" in done.stdout
    assert Results.load(tmp_path / "run").coverage == 1.0


def test_partners_and_judges_take_their_places_and_everything_is_on_record(tmp_path: Path) -> None:
    with answering(parrot) as policy, answering(judge_by_length) as judge, answering(say_more) as partner:
        price = {"price": {"prompt": 1.0, "completion": 2.0}}
        config = api_config(policy, role("judge", judge, **price), role("partner", partner), "limit=4", suite=TALK)
        results = evaluate(config, tmp_path / "run")
    assert results.coverage == 1.0 and results.cost_usd > 0
    with LedgerReader(tmp_path / "run" / "ledger") as ledger:
        (first, *_) = [r.episode for r in ledger.episodes()]
    assert [s.seat for s in first.says] == ["writer", "other", "writer"]
    assert Counter(c.role for c in first.judge_calls) == {"policy": 2, "partner": 1, "judge": 1}
    assert len(policy.requests) == 8 and len(partner.requests) == 4 and len(judge.requests) == 4


def test_an_api_model_is_asked_with_the_decoding_that_was_set_and_with_nothing_else(tmp_path: Path) -> None:
    def sent(*more: str) -> object:
        endpoint = '{"model": "tiny", "base_url": "http://127.0.0.1:1/v1", "extra_body": {"seed_bias": 1}}'
        config = load(EvalRunConfig, None, [f"suite={VOWELS}", f"model.endpoint={endpoint}", *more])
        policy = config.client_config(tmp_path).policy
        return policy and policy.extra_body

    assert sent() == {"seed_bias": 1}
    assert sent("decoding.top_k=5") == {"seed_bias": 1, "top_k": 5}
    assert sent("decoding.top_p=0.9", "decoding.temperature=1") == {"seed_bias": 1, "top_p": 0.9}


def test_a_role_without_an_endpoint_is_refused_before_anything_is_asked(tmp_path: Path) -> None:
    with answering(parrot) as policy:
        with pytest.raises(ConfigError, match=r"(?s)client.judge: missing.*client.partner: missing"):
            evaluate(api_config(policy, suite=TALK), tmp_path / "run")
    assert policy.requests == []


@pytest.mark.parametrize("name", ["tau_usi", "sim_math", "sim_doc"])
def test_a_profile_that_asks_no_judge_needs_a_partner_and_no_judge(name: str) -> None:
    spec = registry.get(name)
    assert roles_of(spec, "author") == {"partner", *(j.role for j in spec.judges if j.role == "critic")}
    assert roles_of(spec, "strict") == {"judge", *roles_of(spec, "author")}


def test_an_evaluation_under_a_profile_that_asks_no_judge_runs_without_one(tmp_path: Path) -> None:
    with answering(parrot) as policy, answering(say_more) as partner:
        more = (role("partner", partner), "limit=1")
        with pytest.raises(ConfigError, match=r"client.judge: missing"):
            evaluate(api_config(policy, *more, suite="tau_usi"), tmp_path / "judged")
        results = evaluate(api_config(policy, *more, "profile=author", suite="tau_usi"), tmp_path / "run")
    assert results.coverage == 1.0 and policy.requests and partner.requests


def _run_in_child(folder: Path, served: Served, judge: Served) -> subprocess.Popen[bytes]:
    out = ["--out", str(folder), "concurrency.limit=2", "concurrency.start=2"]
    judged_by = ["--judge", f"api:judge@{judge.url}"]
    command = [sys.executable, "-c", CLI, "eval", "run", "--suite", JUDGED, "--model", served.ref]
    return subprocess.Popen([*command, *judged_by, *out], cwd=ROOT, stdout=subprocess.DEVNULL)


def _recorded(folder: Path) -> int:
    if not (folder / "ledger" / "ledger.sqlite").is_file():
        return 0
    with suppress(LedgerNotStarted, OsimError), LedgerReader(folder / "ledger") as reader:
        return len(reader.keys())
    return 0


def test_killed_and_resumed_no_call_that_was_answered_is_made_again(tmp_path: Path) -> None:
    import asyncio

    async def slow(body: dict[str, Any]) -> str:
        await asyncio.sleep(0.05)
        return await parrot(body)

    with answering(slow) as policy, answering(judge_by_length) as judge:
        child = _run_in_child(tmp_path / "killed", policy, judge)
        deadline = time.monotonic() + 90
        while _recorded(tmp_path / "killed") < 4 and time.monotonic() < deadline and child.poll() is None:
            time.sleep(0.02)
        os.kill(child.pid, signal.SIGKILL)
        child.wait(10)
        assert 4 <= _recorded(tmp_path / "killed") < 12
        resumed = _run_in_child(tmp_path / "killed", policy, judge)
        assert resumed.wait(120) == 0
        asked = Counter(json.dumps(r, sort_keys=True) for r in [*policy.requests, *judge.requests])
        whole = evaluate(api_config(policy, role("judge", judge), suite=JUDGED), tmp_path / "whole")
    # At most the two requests in flight at the kill were sent twice; probes are answered from the record too.
    assert sum(n - 1 for n in asked.values()) <= 2
    again = Results.load(tmp_path / "killed")
    assert values(again) == values(whole) and again.tasks[0].estimate == whole.tasks[0].estimate


def test_an_unusable_verdict_is_asked_for_again_with_another_seed_not_replayed(tmp_path: Path) -> None:
    seen: Counter[str] = Counter()

    async def moody(body: dict[str, Any]) -> str:
        question = body["messages"][1]["content"].split("\n", 1)[1].rsplit("\n", 1)[0]
        seen[question] += 1
        return "I like it." if seen[question] <= 3 else json.dumps({"score": 0.5})

    with answering(parrot) as policy, answering(moody) as judge:
        config = api_config(policy, role("judge", judge), "limit=3", "attempts=1", "min_coverage=0", suite=JUDGED)
        first = evaluate(config, tmp_path / "run")
        policy_calls = len(policy.requests)
        second = evaluate(config, tmp_path / "run")
    assert first.coverage == 0.0 and first.tasks[0].unscored == {"judge_failed": 3}
    assert second.coverage == 1.0 and set(values(second).values()) == {0.5}
    assert len(policy.requests) == policy_calls, "the model is not asked again: its answer is on record"


def test_the_dry_run_asks_everybody_once_and_tells_calls_tokens_price_and_disk(tmp_path: Path) -> None:
    lines: list[str] = []
    with answering(parrot) as policy, answering(judge_by_length) as judge, answering(say_more) as partner:
        price = {"price": {"prompt": 1.0, "completion": 2.0}}
        config = api_config(policy, role("judge", judge, **price), role("partner", partner), suite=TALK)
        dry_run(config, tmp_path / "run", lines.append)
        assert (len(judge.requests), len(partner.requests)) == (1, 1) and 0 < len(policy.requests) <= 9
    told = "\n".join(lines)
    assert "✓ judge toy v1: a valid verdict" in told and "✓ partner: answers" in told
    assert "policy calls" in told and "price: likely $" in told and "disk: about" in told and "time: about" in told
    row = next(line for line in lines if line.startswith(TALK)).split()
    assert row[1:5] == ["12", "24", "12", "12"], "episodes; calls of policy, judge and partner"
    assert not (tmp_path / "run" / "results.json").exists()


def test_the_dry_run_names_everybody_who_does_not_answer(tmp_path: Path) -> None:
    async def prose(body: dict[str, Any]) -> str:
        return "Great!"

    with answering(parrot) as policy, answering(prose) as judge:
        nowhere = Served("http://127.0.0.1:9/v1")
        config = api_config(policy, role("judge", judge), role("partner", nowhere, max_retries=0), suite=TALK)
        with pytest.raises(UsageError, match=r"(?s)judge toy v1: invalid_reply.*partner: connection"):
            dry_run(config, tmp_path / "run", lambda line: None)


def test_an_evaluation_beyond_its_budget_is_refused_before_it_starts(tmp_path: Path) -> None:
    with answering(parrot) as policy, answering(judge_by_length) as judge:
        dear = role("judge", judge, price={"prompt": 1e6, "completion": 1e6})
        config = api_config(policy, dear, "client.max_usd=100", suite=JUDGED)
        with pytest.raises(GateError, match="would likely cost"):
            dry_run(config, tmp_path / "run", lambda line: None)


def test_rescoring_uses_recorded_verdicts_or_another_judge_and_never_the_model(tmp_path: Path) -> None:
    async def harsh(body: dict[str, Any]) -> str:
        return json.dumps({"score": json.loads(await judge_by_length(body))["score"] / 4})

    with answering(parrot) as policy, answering(judge_by_length) as judge, answering(harsh) as other:
        config = api_config(policy, role("judge", judge), suite=JUDGED)
        first = evaluate(config, tmp_path / "run")
        asked = len(policy.requests), len(judge.requests)
        soul = rescore_run(tmp_path / "run", "soul", tmp_path / "soul")
        unseen = rescore_run(tmp_path / "run", None, tmp_path / "unseen", judge=endpoint(other))
        assert (len(policy.requests), len(judge.requests)) == asked and len(other.requests) == 12
    assert soul.results.coverage == 1.0 and soul.agreement == ()
    assert values(soul.results) == {row: pytest.approx((v or 0) / 2) for row, v in values(first).items()}
    (agreement,) = unseen.agreement
    assert agreement.gap.value < 0 and agreement.spearman == pytest.approx(1.0)
    assert says(tmp_path / "unseen") == says(tmp_path / "run")


def endpoint(served: Served) -> Any:
    from envs.client.config import Endpoint

    return Endpoint(model="other", base_url=served.url)


def test_imposters_are_other_people_and_pair_with_the_rows_they_replace(tmp_path: Path) -> None:
    from eval.compare import compare

    with answering(parrot) as policy:
        own = evaluate(api_config(policy), tmp_path / "own")
        other = evaluate(api_config(policy, "control=imposter"), tmp_path / "imposter")
    with LedgerReader(tmp_path / "imposter" / "ledger") as ledger:
        rows = [r.episode.row for r in ledger.episodes()]
    assert len(rows) == 12 and all(r.data["persona"] != f"number {int(r.id) // 2}" for r in rows)
    comparison = compare(own, other)
    assert comparison.tasks[0].difference.n == 12 and other.control == "imposter"


def test_a_reference_to_a_model_is_an_endpoint_or_a_path_that_exists(tmp_path: Path) -> None:
    at = parse_model("api:org/Model-8B@http://127.0.0.1:30000/v1")
    assert at == {"endpoint": {"model": "org/Model-8B", "base_url": "http://127.0.0.1:30000/v1"}}
    assert parse_model("api:gpt")["endpoint"] == {"model": "gpt"}
    assert parse_model(str(tmp_path)) == {"path": str(tmp_path)}
    with pytest.raises(UsageError, match="api:MODEL"):
        parse_model("gpt-5")


def test_a_run_goes_on_under_another_bound_but_not_with_another_model(tmp_path: Path) -> None:
    with answering(parrot) as policy:
        evaluate(api_config(policy, "limit=3"), tmp_path / "run")
        evaluate(api_config(policy, "limit=3", "min_coverage=0.5", "client.max_usd=9"), tmp_path / "run")
        with pytest.raises(UsageError, match="another configuration"):
            evaluate(api_config(policy, "limit=4"), tmp_path / "run")
    assert load(EvalRunConfig, tmp_path / "run" / "config.yaml").min_coverage == 0.5


def test_a_folder_with_nothing_but_a_dry_run_takes_another_configuration(tmp_path: Path) -> None:
    with answering(parrot) as policy:
        dry_run(api_config(policy, "limit=3"), tmp_path / "run", lambda line: None)
        assert evaluate(api_config(policy, "limit=4"), tmp_path / "run").tasks[0].planned == 4


def test_a_second_evaluation_in_the_folder_of_a_running_one_changes_nothing_there(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    with answering(parrot) as policy:
        config = api_config(policy, "limit=3")
        RunFolder.prepare(folder.path, config)
        with folder.lock():
            before = folder.config.read_bytes()
            with pytest.raises(UsageError, match="another run is using"):
                evaluate(api_config(policy, "limit=5"), folder.path)
            assert folder.config.read_bytes() == before
