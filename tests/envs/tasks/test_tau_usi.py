"""tau-USI: tools on an immutable database, generated requests, tau-bench's own files, privacy, USI."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from common.errors import DataError, UsageError
from envs import registry
from envs.registry import with_data
from envs.tasks.schema import data_of
from envs.tasks.tau_usi import survey
from envs.tasks.tau_usi.database import Database
from envs.tasks.tau_usi.env import DOMAINS, MAX_TOOL_ROUNDS, Service
from envs.tasks.tau_usi.features import DIMENSIONS, measure
from envs.tasks.tau_usi.prompts import STOP, calls_in
from envs.tasks.tau_usi.rows import Case, tasks_in
from envs.tasks.tau_usi.task import rows
from envs.tasks.tau_usi.tools import call
from envs.tasks.tau_usi.usi import Talked, usi
from envs.types import Episode, FailureReason, Row, Score, Unscored
from tests.envs.tasks.judged import FixedJudge, played, value

SPEC = registry.get("tau_usi")
ROWS = rows("train", 40, 0)
ANSWERS = json.dumps({name: most for name, (_, most) in survey.QUESTIONS.items()})


def judge(**changes: Any) -> FixedJudge:
    return FixedJudge(SPEC, {JUDGE: {"reasoning": "r", "at_fault": False, "faithful": 8, "natural": 6, **changes}})


JUDGE = "tau_usi.customer"


def right_agent(row: Row) -> list[str]:
    case = data_of(Case, row)
    calls = "".join(f"<call>{one.model_dump_json()}</call>" for one in case.actions)
    return ["Which order is it?", calls, "Done."]


def serve(
    row: Row, customer: list[str], agent: list[str] | None = None, profile: Any = "strict", **verdict: Any
) -> Episode:
    says = {"customer": customer, "agent": right_agent(row) if agent is None else agent}
    return played(SPEC, row, says, judge=judge(**verdict), profile=profile)


TALK = ["hi there, small thing", "yes do it", STOP, ANSWERS]


def test_generated_requests_repeat_share_no_customer_request_and_can_be_settled() -> None:
    assert rows("train", 10, 3) == rows("train", 20, 3)[:10] != rows("train", 10, 4)
    assert not {r.id for r in rows("train", 60, 1)} & {r.id for r in rows("test", 30, 2)}
    assert {row.data["domain"] for row in ROWS} == {"retail", "airline"}
    for row in ROWS:
        case = data_of(Case, row)
        assert case.tables is not None
        before = copy.deepcopy(case.tables)
        database = Database(case.tables)
        for one in case.actions:
            told, database = call(DOMAINS[case.domain][1], database, one.name, one.arguments)
            assert not told.startswith("Error"), (row.id, told)
        assert database.differences() and case.tables == before


def test_success_is_the_right_changes_and_nothing_else() -> None:
    for row in ROWS:
        assert value(serve(row, TALK, profile="author"), "customer") == 1
        assert value(serve(row, TALK, ["Which one?", "No."], profile="author"), "customer") == 0
        twice = serve(row, TALK, ["Which?", right_agent(row)[1] * 2, "Done."], profile="author")
        case = data_of(Case, row)
        if case.domain == "retail":  # the second call is refused and changes nothing
            assert value(twice, "customer") == 1


def test_tools_refuse_what_they_cannot_do_and_change_nothing() -> None:
    for row in ROWS:
        case = data_of(Case, row)
        assert case.tables is not None
        tools, database = DOMAINS[case.domain][1], Database(case.tables)
        for name, tool in tools.items():
            for filler in ("nothing", "", [], 7, {"a": 1}):
                told, after = call(tools, database, name, dict.fromkeys(tool.parameters, filler))
                assert not after.differences() or not tool.writes
                assert isinstance(told, str)
        assert call(tools, database, "fly", {})[0].startswith("Error: there is no tool")
        assert call(tools, database, "think", {})[0].startswith("Error: think takes exactly")
        assert call(tools, database, "calculate", {"expression": "(2 + 3) * 4"})[0] == "20.0"
        for bad in ("__import__('os')", "2 **", "9 / 0", "a + 1"):
            assert call(tools, database, "calculate", {"expression": bad})[0].startswith("Error")


def test_the_customer_never_sees_tools_or_records_and_the_agent_never_the_instruction() -> None:
    assert SPEC.private is not None
    for row in ROWS:
        episode = serve(row, TALK)
        for owner, texts in SPEC.private(row).items():
            assert texts
            for seat, view in episode.views.items():
                assert seat == owner or not any(t in m.content for m in view for t in texts)
        seen = " ".join(m.content for m in episode.views["customer"])
        assert "<call>" not in seen and "payment_methods" not in seen
        assert any(m.role == "user" and ": {" in m.content for m in episode.views["agent"])


def test_strict_is_the_judges_and_zero_for_a_customer_at_fault() -> None:
    row = ROWS[0]
    assert value(serve(row, TALK), "customer") == pytest.approx(0.7)
    assert value(serve(row, TALK, at_fault=True), "customer") == 0
    failed = played(SPEC, row, {"customer": TALK, "agent": right_agent(row)}, judge=FixedJudge(SPEC, {}))
    assert failed.outcomes == {"customer": Unscored(FailureReason.JUDGE_FAILED, f"{JUDGE}: down")}


def test_leaving_at_once_silence_and_reciting_earn_nothing() -> None:
    row = ROWS[0]
    silent = serve(row, [" "]).outcomes["customer"]
    assert isinstance(silent, Score) and silent.value == 0 and silent.format_error
    for lines in ([STOP, ANSWERS], ["hi", STOP, ANSWERS], [row.data["instruction"], "yes", STOP, ANSWERS]):
        outcome = serve(row, lines).outcomes["customer"]
        assert isinstance(outcome, Score)
        assert (outcome.value == 0) == (lines[0] != "hi")


def test_an_agent_that_only_uses_tools_is_the_partners_failure() -> None:
    episode = serve(ROWS[0], ["hi"], ["<call>{}</call>"])
    outcome = episode.outcomes["customer"]
    assert isinstance(outcome, Unscored) and outcome.reason is FailureReason.PARTNER_FAILED
    assert sum(say.seat == "agent" for say in episode.says) == MAX_TOOL_ROUNDS


def test_calls_are_read_in_order_and_malformed_ones_are_told() -> None:
    assert calls_in('<call>{"name": "a", "arguments": {}}</call> x <call>[1]</call>') == [
        ("a", {}),
        'Error: a call is one JSON object with "name" and "arguments"',
    ]
    assert calls_in("no call") == []


def test_not_answering_the_survey_agrees_with_nobody() -> None:
    real = {"task_success": 5, "reuse": 1}
    assert survey.agreement(real, {"task_success": 5, "reuse": 1}) == 1
    assert survey.agreement(real, {"task_success": 5}) == 0.5 and survey.agreement(real, {}) == 0
    assert survey.agreement({}, real) is None
    assert survey.read('so: {"task_success": 4, "reuse": 9, "efficiency": true} ok') == {"task_success": 4}
    assert survey.read("{broken") == {} == survey.read("[1]")


def test_usi_is_full_for_the_same_people_and_drops_for_others() -> None:
    calm = measure(["hi, I need help please", "ok", "thanks"])
    angry = measure(["this is WRONG and ridiculous!", "are you sure? i already told you my id 123456"])
    assert set(calm) >= {name for names in DIMENSIONS.values() for name in names} and measure(["", " "]) == {}
    people = [Talked(calm, True, {"reuse": 5}, 0.1), Talked(angry, False, {"reuse": 1}, 0.9)]
    same = usi(people, people)
    assert same == {**dict.fromkeys(DIMENSIONS, 100.0), "calibration": 100.0, "survey agreement": 100.0, "USI": 100.0}
    others = [Talked(calm, True, {}), Talked(calm, True, {})]
    assert usi(people, others)["USI"] < 75 and usi(people, others)["calibration"] == 50 and usi([], []) == {}


def test_reliability_and_usi_over_an_evaluation() -> None:
    human = {"features": measure(["hi there, small thing", "yes do it"]), "success": True, "survey": {"reuse": 5}}
    row = Row("tau_usi", "r", "c", {**ROWS[0].data, "humans": [human]})
    tries = [serve(row, TALK), serve(row, TALK, ["Which?", "No."])]
    assert SPEC.aggregate is not None
    found = SPEC.aggregate(tries)
    assert found["pass^1"] == 0.5 and found["pass^2"] == 0.0
    assert found["D4 reaction"] == 100 and found["survey agreement"] == 100 and found["calibration"] == 50
    assert set(SPEC.aggregate([serve(ROWS[1], TALK)])) == {"pass^1"}


def tau_bench(folder: Path) -> Path:
    """The layout and the Python task file of tau-bench, with one request."""
    case = next(row.data for row in ROWS if row.data["domain"] == "retail")
    (folder / "retail" / "data").mkdir(parents=True)
    for table, records in case["tables"].items():
        (folder / "retail" / "data" / f"{table}.json").write_text(json.dumps(records))
    (action,) = case["actions"]
    (folder / "retail" / "tasks_test.py").write_text(
        "from tau_bench.types import Task, Action\nTASKS_TEST = [\n    Task(\n        annotator='0',\n"
        f"        user_id={case['user_id']!r},\n        instruction={case['instruction']!r},\n"
        f"        actions=[Action(name={action['name']!r}, kwargs={action['arguments']!r})],\n"
        "        outputs=['1,234'],\n    ),\n]\n"
    )
    return folder


def test_tau_benchs_own_files_are_read_and_played_without_running_them(tmp_path: Path) -> None:
    spec = with_data(SPEC, tau_bench(tmp_path))
    (row,) = spec.rows("test", None, 0)
    assert row.id == "retail_0" and row.data["tables"] is None
    says = {"customer": TALK, "agent": [*right_agent(row)[:2], "That makes 1,234 in all."]}
    # tau-bench takes commas out of what was told, not out of what was to be told.
    row_plain = Row(row.task, row.id, row.cluster, {**row.data, "outputs": ["1234"]})
    assert value(played(spec, row_plain, says, profile="author"), "customer") == 1
    assert value(played(spec, row, says, profile="author"), "customer") == 0
    unbound = SPEC.env("strict")
    with pytest.raises(DataError, match="no records"):
        unbound.start(row, None)
    with pytest.raises(UsageError, match="no tau-bench here"):
        list(with_data(SPEC, tmp_path / "retail").rows("test", None, 0))
    with pytest.raises(DataError, match="not a file of tasks"):
        tasks_in("Task(user_id=open('x'))", "here")


def test_annotations_beside_tau_bench_reach_the_rows(tmp_path: Path) -> None:
    said = [("assistant", "Hi"), ("user", "hello, my lamp please"), ("user", "<|survey|> x"), ("user", "/stop")]
    talk = [{"role": role, "content": text} for role, text in said]
    answers = {
        "reuse": {"answer": "Absolutely yes"},
        "task_success": {"answer": "No - Due to a policy"},
        "human_like": {},
    }
    entry = {"conversation": talk, "survey": answers, "reward": 1.0, "keep": True}
    people = {"retail_0": entry, "retail_0_ann2": {**entry, "keep": False}, "retail_0_ann3": {**entry, "reward": 0}}
    folder = tau_bench(tmp_path)
    (folder / "tau_bench_tasks_unified.json").write_text(json.dumps(people))
    (folder / "tau_usi_difficulty.json").write_text(json.dumps({"difficulty": {"retail_0": 0.25}}))
    (row,) = with_data(SPEC, folder).rows("test", None, 0)
    first, third = data_of(Case, row).humans
    assert first.survey == {"task_success": 2, "reuse": 5} and first.difficulty == 0.25
    assert first.success and not third.success and first.features["opening words"] == 4
    (folder / "tau_bench_tasks_unified.json").write_text('{"other_1": {}}')
    with pytest.raises(DataError, match="other_1"):
        list(with_data(SPEC, folder).rows("test", None, 0))


def test_a_state_compares_by_value() -> None:
    env = SPEC.env("strict")
    one, two = (env.hear(env.start(ROWS[0], None), "customer", "hi") for _ in range(2))
    assert isinstance(one, Service) and one == two
