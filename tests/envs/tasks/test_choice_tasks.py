"""Multiple choice in OdysSim's published form: rows load, profiles follow their rules, exploits earn nothing."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import DataError, UsageError
from envs import registry
from envs.check import check
from envs.registry import TaskSpec, with_data
from envs.tasks import alignx, behaviorchain, lifechoices, mistakes, social_r1, twinvoice
from envs.tasks.choice import Item, strict_choice
from envs.tasks.lifechoices.soul import permissive_choice
from envs.tasks.single import without_thought
from envs.tasks.social_r1.task import split_options
from envs.types import Row
from tests.envs.tasks.published import as_jsonl, as_parquet, episode_of, score

RECORDS = {
    "lifechoices": lifechoices.task.EXAMPLES,
    "mistakes": mistakes.task.EXAMPLES,
    "twinvoice": twinvoice.task.EXAMPLES,
    "social_r1": social_r1.task.EXAMPLES,
    "behaviorchain": behaviorchain.task.EXAMPLES,
    "alignx_demo": alignx.task.EXAMPLES[:1],
    "alignx_history16": alignx.task.EXAMPLES[:1],
}
GOLD = {
    "lifechoices": ["B", "A"],
    "mistakes": ["C", "B"],
    "twinvoice": ["B", "C"],
    "social_r1": ["B", "A"],
    "behaviorchain": ["A", "B"],
}


def examples(name: str) -> tuple[TaskSpec, list[Row]]:
    spec = registry.get(name)
    assert spec.examples is not None
    return spec, list(spec.examples())


@pytest.mark.parametrize("name", RECORDS)
def test_published_rows_load_the_same_from_parquet_and_json_lines(name: str, tmp_path: Path) -> None:
    spec, own = examples(name)
    found = []
    for path in (
        as_parquet(tmp_path / "rows.parquet", RECORDS[name]),
        as_jsonl(tmp_path / "rows.jsonl", RECORDS[name]),
    ):
        loaded = with_data(spec, path)
        found.append(sorted(loaded.rows("test", None, 0), key=lambda row: row.id))
        assert check(loaded) == []
    assert found[0] == found[1] == own[: len(RECORDS[name])]
    with pytest.raises(UsageError, match="give its path"):
        list(spec.rows("test", None, 0))


@pytest.mark.parametrize("name", GOLD)
def test_the_right_letter_scores_and_nothing_else_does(name: str) -> None:
    spec, rows = examples(name)
    assert spec.samples is not None
    for row, letter in zip(rows, GOLD[name], strict=True):
        count = len(row.data["choices"])
        for profile in spec.profiles:
            values = {x: score(spec, row, f"<answer>{x}</answer>", profile).value for x in "ABCD"[:count]}
            assert values == {x: float(x == letter) for x in values}
        right = f"<answer>{letter}</answer>"
        assert score(spec, row, f"<think>B or C?</think>{right}").value == 1.0
        assert score(spec, row, f"<answer>{row.data['answer']}</answer>").value == 1.0


@pytest.mark.parametrize("name", [*GOLD, "alignx_demo"])
def test_an_empty_turn_a_dumped_list_and_prose_earn_nothing_under_strict(name: str) -> None:
    spec, rows = examples(name)
    letters = "ABCD"
    exploits = [
        "",
        "A bad day, Dan. Because Carl asked for both.",
        "".join(f"<answer>{x}</answer>" for x in letters),
        "<answer>A, B, C or D</answer>",
        "<answer></answer>",
        "the answer is B",
        *(f"<think><answer>{x}</answer></think>" for x in letters),
    ]
    for row in rows:
        outcomes = [score(spec, row, reply) for reply in exploits]
        assert all(o.value == 0.0 and o.format_error for o in outcomes)


def test_lifechoices_prose_gets_a_letter_under_soul_only() -> None:
    spec, (row, _) = examples("lifechoices")
    for prose in ("Be brave.", "My choice: b", "it is (B)", "Nothing but B", "B) because"):
        assert score(spec, row, prose, "soul").value == 1.0
        assert score(spec, row, prose).format_error
    item = Item("?", ("w", "x", "y", "z"), 0)
    assert [permissive_choice(item, text) for text in ("", "no, no", "<answer> c </answer> a", "answer: d")] == [
        None,
        None,
        2,
        3,
    ]


def test_lifechoices_grounding_holds_the_life_and_labels_are_not_repeated() -> None:
    spec, (_, row) = examples("lifechoices")
    system, user = episode_of(spec, row, "").views["reader"][:2]
    assert (system.role, user.role) == ("system", "user")
    assert "Ilse" in system.content and "ferry" in system.content
    assert "\nA. She jumps in.\n" in user.content and "A. A." not in user.content


def test_mistakes_pays_the_misconceptions_option_and_its_feedback_does_not_name_it() -> None:
    spec, (row, other) = examples("mistakes")
    assert row.cluster == other.cluster  # one question, two misconceptions: resampled together
    assert spec.part is not None and [spec.part(r) for r in (row, other)] == ["target C", "target B"]
    env = spec.env("strict")
    state = env.hear(env.start(row, None), "reader", "<answer>A</answer>")  # type: ignore[arg-type]
    feedback = env.feedback(state, "reader")
    assert feedback.sees_gold and "2/5" not in feedback.text and "C" not in feedback.text.split()


def test_social_r1_options_are_taken_out_of_the_text() -> None:
    question, options = split_options(
        "A. Smith left.\nWhy?\n\nA. Rain\nB. Sun,\nwith wind\nC. Snow\n\nOne letter.", ""
    )
    assert options == ("Rain", "Sun,\nwith wind", "Snow")
    assert question == "A. Smith left.\nWhy?\n\nOne letter."
    with pytest.raises(DataError, match="no lines A"):
        split_options("Why? A. Rain B. Sun", "row 1")


def test_social_r1_raw_shapes_load(tmp_path: Path) -> None:
    text = "Who lies?\nA. Al\nB. Bo"
    records = [
        {"conversations": [{"messages": [{"role": "user", "content": text}]}], "answer_text": "B. Bo"},
        {"prompt": [{"role": "user", "content": text}], "answer_text": "Bo"},
        {"prompt": text, "answer_letter": "B"},
    ]
    spec = with_data(registry.get("social_r1"), as_jsonl(tmp_path / "rows.jsonl", records))
    assert [row.data["answer"] for row in spec.rows("test", None, 0)] == ["Bo"] * 3


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("lifechoices", {"character_name": None}, "character_name"),
        ("mistakes", {"TargetOption": "E"}, "answer is none of the choices"),
        ("twinvoice", {"answer_idx": 7}, "answer is none of the choices"),
        ("twinvoice", {"choices": ["one"], "answer_idx": 0}, "2 to 26 options"),
        ("social_r1", {"answer_letter": "Q"}, "answer is none of the choices"),
    ],
)
def test_bad_records_are_named_with_what_is_wrong(
    name: str, change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    record = dict(RECORDS[name][0])
    record["extra_info"] = {**record["extra_info"], **change}
    spec = with_data(registry.get(name), as_jsonl(tmp_path / "rows.jsonl", [record]))
    with pytest.raises(DataError, match=message) as raised:
        spec.rows("test", None, 0)
    assert "record 1" in str(raised.value)


def test_rows_of_another_task_are_refused(tmp_path: Path) -> None:
    path = as_jsonl(tmp_path / "rows.jsonl", RECORDS["mistakes"])
    with pytest.raises(DataError, match=r"'mistakes'.*\n.*twinvoice reads twinvoice"):
        with_data(registry.get("twinvoice"), path).rows("test", None, 0)


def test_a_repeated_option_is_right_wherever_it_stands(tmp_path: Path) -> None:
    record = {"anchor_post": "?", "history": [], "choices": ["yes", "no", "yes", "?"], "answer_idx": 0}
    spec = with_data(registry.get("twinvoice"), as_jsonl(tmp_path / "rows.jsonl", [record]))
    (row,) = spec.rows("test", None, 0)
    values = [score(spec, row, f"<answer>{x}</answer>").value for x in ("A", "B", "C", "yes")]
    assert values == [1.0, 0.0, 1.0, 1.0]


@pytest.mark.parametrize(
    "name", ["lifechoices", "mistakes", "twinvoice", "behaviorchain", "alignx_demo", "humanllm", "humanual_chat"]
)
def test_an_imposter_has_another_persona_and_the_same_question(name: str) -> None:
    spec, (row, other, *_) = examples(name)
    assert spec.imposter is not None
    changed = {key: value for key, value in other.data.items() if value != row.data[key]}
    swapped = spec.imposter(row, other)
    differs = {key for key in row.data if swapped.data[key] != row.data[key]}
    assert differs <= changed.keys() and not differs & {"choices", "answer", "completion", "candidates", "bought"}
    shown, own = (episode_of(spec, r, "").views["reader"] for r in (swapped, row))
    assert shown[1:] == own[1:]
    assert shown[0] != own[0] or not differs


def test_thoughts_are_cut_by_their_own_pair_of_tags() -> None:
    assert without_thought("<think>a</think>b<seed:think>c</seed:think> d ") == "b d"
    assert without_thought("<think>a</seed:think> b") == "<think>a</seed:think> b"


def test_parts_of_a_record_may_be_json_text(tmp_path: Path) -> None:
    record = {"data_source": "lifechoices", "extra_info": dict(RECORDS["lifechoices"][0]["extra_info"])}
    record["extra_info"]["Multiple Choice Question"] = json.dumps(record["extra_info"]["Multiple Choice Question"])
    (row,) = with_data(registry.get("lifechoices"), as_jsonl(tmp_path / "a.jsonl", [record])).rows("test", None, 0)
    pair = {"data_source": "alignx", "extra_info": dict(RECORDS["alignx_demo"][0]["extra_info"])}
    pair["extra_info"]["icl_pairs"] = json.dumps(pair["extra_info"]["icl_pairs"])
    (other,) = with_data(registry.get("alignx_demo"), as_jsonl(tmp_path / "b.jsonl", [pair])).rows("test", None, 0)
    assert (row, other) == (examples("lifechoices")[1][0], examples("alignx_demo")[1][0])


PIECES = ["<answer>", "</answer>", "A", "B", "C", "D", "z", " or ", ", ", "\n", "<think>", "</think>", "yes", "("]


@given(st.lists(st.sampled_from(PIECES), max_size=9).map("".join))
def test_strict_pays_only_for_one_block_that_names_one_option(reply: str) -> None:
    item = Item("?", ("w", "x", "y", "z"), 1)
    chosen = strict_choice(item, reply)
    after = reply.rpartition("</think>")[2]
    blocks = re.findall(r"<answer>(.*?)</answer>", after, re.DOTALL)
    if chosen is None:
        assert len(blocks) != 1 or blocks[0].strip() not in [*"ABCDz"]
    else:
        assert len(blocks) == 1 and sum(letter in blocks[0] for letter in "ABCDz") == 1
