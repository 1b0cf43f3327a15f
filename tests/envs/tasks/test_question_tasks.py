"""Tasks that ask one question: they load, conform, and their known exploits earn nothing under strict."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from common.errors import DataError, UsageError
from envs import registry
from envs.check import check
from envs.play import play
from envs.players.scripted import ScriptedPlayer
from envs.registry import TaskSpec, with_data
from envs.tasks.tombench.task import EXAMPLES as TOMBENCH_EXAMPLES
from envs.tasks.tombench.task import READ as READ_TOMBENCH
from envs.types import Row, Score

SAMPLES = Path(__file__).resolve().parents[4] / "shared" / "data" / "benchmarks"
FILES = {
    "fantom": "fantom/belief_short_40.jsonl",
    "mmtom": "mmtom/mmtom_70.jsonl",
    "paratomi": "paratomi/test_200.txt",
    "tombench": "tombench/tombench_60.jsonl",
}
COUNTS = {"fantom": 40, "mmtom": 70, "paratomi": 200, "tombench": 120}


def loaded(name: str) -> TaskSpec:
    path = SAMPLES / FILES[name]
    if not path.is_file():
        pytest.skip(f"no benchmark samples: {SAMPLES} is not here")
    return with_data(registry.get(name), path)


def score(spec: TaskSpec, row: Row, reply: str, profile: Any = "strict") -> Score:
    env = spec.env(profile)
    (seat,) = env.seats
    episode = asyncio.run(play(env, row, {seat: ScriptedPlayer([reply])}, seed=0))
    outcome = episode.outcomes[seat]
    assert isinstance(outcome, Score)
    return outcome


@pytest.mark.parametrize("name", FILES)
def test_published_samples_load_conform_and_score(name: str) -> None:
    spec = loaded(name)
    rows = list(spec.rows("test", None, 0))
    assert len(rows) == COUNTS[name]
    assert check(spec) == []
    assert spec.samples is not None
    right, *_ = spec.samples(rows[0], spec.seats[0])
    assert score(spec, rows[0], right) == Score(1.0, explanation=score(spec, rows[0], right).explanation)
    assert list(spec.rows("test", 5, 0)) == list(spec.rows("test", 5, 0)) != list(spec.rows("test", 5, 1))
    with pytest.raises(UsageError, match="holds split 'test'"):
        spec.rows("train", None, 0)


@pytest.mark.parametrize("name", FILES)
def test_the_exploits_of_the_authors_rules_earn_nothing_under_strict(name: str) -> None:
    spec = loaded(name)
    row = next(iter(spec.rows("test", 1, 0)))
    exploits = ["idk", "", "A person…", "(a) or (b)", "<answer>a</answer><answer>b</answer>", "<answer>a, b</answer>"]
    assert sum(score(spec, row, text).value for text in exploits) == 0
    if name == "fantom":
        assert score(spec, row, "(a) or (b)", "author").value == 1.0
    else:
        assert {score(spec, row, text, "author").value for text in exploits} <= {0.0, 1.0}


def fantom_row(tmp_path: Path, **fields: Any) -> tuple[TaskSpec, Row]:
    record = {"context": "Al left. Kim spoke.", "complete_question": "Who knows?", "set_id": "s1", **fields}
    (tmp_path / "rows.jsonl").write_text(json.dumps({"data_source": "fantom", "extra_info": record}))
    spec = with_data(registry.get("fantom"), tmp_path / "rows.jsonl")
    (row,) = spec.rows("test", None, 0)
    return spec, row


def test_fantom_lists_take_exactly_the_right_names(tmp_path: Path) -> None:
    fields = {"question_type": "tom:answerability:list", "correct_answer": "['Al', 'Kim']", "wrong_answer": ["Alan"]}
    spec, row = fantom_row(tmp_path, **fields)
    assert score(spec, row, "<answer>Kim and Al</answer>").value == 1.0
    assert score(spec, row, "<answer>Kim, Al, Alan</answer>").value == 0.0
    assert score(spec, row, "<answer>Kim, Alan</answer>").value == 0.0
    # The authors' rule matches substrings: "Al" is in "Alan", which makes Alan's absence invisible.
    assert score(spec, row, "Kim, Al", "author").value == 1.0
    assert score(spec, row, "<answer>Kim, Al</answer>", "soul").value == 1.0


def test_fantom_yes_and_no_at_once_is_no_answer(tmp_path: Path) -> None:
    spec, row = fantom_row(tmp_path, question_type="tom:answerability:binary", correct_answer="no:long")
    assert score(spec, row, "<answer>No.</answer>").value == 1.0
    assert score(spec, row, "<answer>yes and no</answer>").format_error
    assert score(spec, row, "nobody", "author").value == 1.0
    assert score(spec, row, "<answer>nobody</answer>").format_error


def test_fantom_facts_are_scored_by_overlap(tmp_path: Path) -> None:
    spec, row = fantom_row(tmp_path, question_type="fact", correct_answer="The old harbour.")
    assert score(spec, row, "<answer>old harbour</answer>").value == 1.0
    assert score(spec, row, "<answer>the new harbour</answer>").value == 0.5


def test_bad_records_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="unknown question type"):
        fantom_row(tmp_path, question_type="riddle", correct_answer="x")
    with pytest.raises(DataError, match="record 1"):
        fantom_row(tmp_path, question_type="fact")
    for answer in ("maybe", "", "yesterday"):
        with pytest.raises(DataError, match=r"record 1: .*neither yes nor no|no field correct_answer"):
            fantom_row(tmp_path, question_type="tom:answerability:binary", correct_answer=answer)
    for index in (7, -1, "b"):
        with pytest.raises(DataError, match="none of the question's"):
            fantom_row(tmp_path, question_type="tom:belief:multiple-choice", correct_answer=index)
    good = json.dumps({"question": "Who? (a) Ann (b) Ben", "answer": "a"})
    for bad, where in (
        ('{"a": ', "line 2"),
        (good.replace("(b)", ""), "record 2: no two options"),
        (good.replace('"a"}', '"c"}'), "record 2: .*none of the choices"),
    ):
        (tmp_path / "bad.jsonl").write_text(f"{good}\n{bad}\n")
        with pytest.raises(DataError, match=where):
            list(with_data(registry.get("mmtom"), tmp_path / "bad.jsonl").rows("test", None, 0))
    other = {"language": "en", "story": "S", "question": "Q", "options": ["a"], "correct_letter": "A"}
    (tmp_path / "bad.jsonl").write_text(json.dumps(other))
    with pytest.raises(DataError, match=r"record 1: .*2 to 26 options"):
        list(with_data(registry.get("tombench"), tmp_path / "bad.jsonl").rows("test", None, 0))
    with pytest.raises(UsageError, match="no benchmark file"):
        with_data(registry.get("mmtom"), tmp_path / "none.txt").rows("test", None, 0)
    with pytest.raises(UsageError, match="makes its own rows"):
        with_data(registry.get("hitom_mini"), tmp_path)


def test_naming_every_place_passes_the_authors_paratomi_rule_and_earns_nothing_under_strict() -> None:
    spec = loaded("paratomi")
    for row in spec.rows("test", 20, 0):
        everything = ", ".join(row.data["choices"])
        assert score(spec, row, everything, "author").value == 1.0
        if len(row.data["choices"]) > 1:
            assert score(spec, row, f"<answer>{everything}</answer>").value == 0.0
            assert score(spec, row, f"<answer>{everything}</answer>", "soul").value == 0.0


def test_tombench_questions_about_one_story_are_one_cluster_in_both_languages(tmp_path: Path) -> None:
    path = tmp_path / "tombench.jsonl"
    again = {**TOMBENCH_EXAMPLES[0], "QUESTION": "And what does Tom want?"}
    other = {**TOMBENCH_EXAMPLES[0], "STORY": "Tom sleeps."}
    path.write_text("\n".join(json.dumps(record) for record in (TOMBENCH_EXAMPLES[0], again, other)))
    clusters = [row.cluster for row in READ_TOMBENCH(path)]
    assert len(clusters) == 6 and len(set(clusters[:4])) == 1 and len(set(clusters[3:])) == 2


TOMBENCH = {"language": "en", "story": "S.", "question": "Q?", "options": ["u", "v", "w", "x"]}
FANTOM = {"context": "Al: hi.", "complete_question": "Q? (a) one (b) two", "set_id": "1"}
CHOICE = FANTOM | {"question_type": "tom:belief:multiple-choice", "correct_answer": 0}
LIST = FANTOM | {"question_type": "tom:infoaccess:list", "correct_answer": ["Al", "Kim"], "wrong_answer": ["Bo"]}
BINARY = FANTOM | {"question_type": "tom:infoaccess:binary", "correct_answer": "no"}
MMTOM = {"question": "Who? (a) Ann (b) Ben", "answer": "a"}


@pytest.mark.parametrize(
    ("name", "record", "reply", "author", "strict"),
    [
        ("fantom", CHOICE, "(a) or (b)", 1.0, 0.0),
        ("fantom", CHOICE, "b, not (a)", 1.0, 0.0),
        ("fantom", CHOICE, "<answer>a</answer>", 0.0, 1.0),
        ("fantom", LIST, "Alan, Kim", 1.0, 0.0),
        ("fantom", LIST, "<answer>Alan, Kim</answer>", 1.0, 0.0),
        ("fantom", BINARY, "nobody", 1.0, 0.0),
        ("fantom", BINARY, "Not sure", 1.0, 0.0),
        ("fantom", BINARY, "<answer>nobody</answer>", 0.0, 0.0),
        ("fantom", BINARY, "I think yes", 0.0, 0.0),
        ("tombench", TOMBENCH | {"correct_letter": "A"}, "idk", 1.0, 0.0),
        ("tombench", TOMBENCH | {"correct_letter": "D"}, "I would pick C. Because Dan left", 1.0, 0.0),
        ("tombench", TOMBENCH | {"correct_letter": "A"}, "[[B]] and not [[A]]", 1.0, 0.0),
        ("tombench", TOMBENCH | {"correct_letter": "B"}, "<answer>B</answer>", 1.0, 1.0),
        ("mmtom", MMTOM, "A person who looks.", 1.0, 0.0),
        ("mmtom", MMTOM, "Neither.", 0.0, 0.0),
    ],
)
def test_each_measured_fault_of_the_authors_rules_is_kept_in_author_and_pays_nothing_under_strict(
    tmp_path: Path, name: str, record: dict[str, Any], reply: str, author: float, strict: float
) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps(record))
    spec = with_data(registry.get(name), tmp_path / "rows.jsonl")
    (row,) = spec.rows("test", None, 0)
    assert (score(spec, row, reply, "author").value, score(spec, row, reply).value) == (author, strict)
