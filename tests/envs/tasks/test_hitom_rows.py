"""Generated stories, their split, and rows of every origin."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from common.config import validate
from common.errors import ConfigError, DataError
from envs import registry
from envs.registry import with_data
from envs.tasks.hitom.generator import Difficulty, generate, hash_story, part_of
from envs.tasks.hitom.levels import LEVELS
from envs.tasks.hitom.rows import generated_rows, prompt_text, read_item, read_rows, row_from_record, split_choices
from envs.tasks.hitom.sentences import parse, parse_question
from envs.tasks.hitom.world import believes
from envs.types import Row

RECORD = {
    "story": "1 Ann entered the hall.\n2 The pear is in the red_box.\n\n",
    "question": "Where is the pear really?",
    "choices": "A. red_box, B. blue_box",
    "question_order": 0,
    "story_length": 1,
}


@pytest.mark.parametrize("name", LEVELS)
def test_every_generated_answer_is_what_the_tracker_finds_in_the_written_story(name: str) -> None:
    level = LEVELS[name]
    rows = generated_rows("train", 40, 3, level.difficulty, prompt=level.prompt)
    assert {row.data["order"] for row in rows} == {0, 1, 2, 3, 4}
    assert len({row.id for row in rows}) == len(rows) == 200
    for item in map(read_item, rows):
        asked = parse_question(item.question)
        assert asked is not None
        assert believes(parse(item.story), *asked, rules=item.rules) == item.answer
        assert " ".join(item.story.split()) in " ".join(prompt_text(item).split())
        assert item.question in prompt_text(item)


@pytest.mark.parametrize("name", LEVELS)
def test_train_and_heldout_share_no_story_whatever_the_seeds(name: str) -> None:
    difficulty = LEVELS[name].difficulty
    train = {p.story_hash for seed in (0, 1) for p in generate("train", 300, seed, difficulty)}
    heldout = {p.story_hash for seed in (0, 1) for p in generate("heldout", 100, seed, difficulty)}
    assert not train & heldout
    assert len({p.story_hash for p in generate("heldout", 100, 2, difficulty)}) == 100


def test_equal_seeds_give_equal_rows_and_a_longer_draw_extends_a_shorter_one() -> None:
    assert generated_rows("train", 5, 1) == generated_rows("train", 5, 1)
    assert generated_rows("train", 9, 1)[:25] == generated_rows("train", 5, 1)
    assert generated_rows("train", 5, 1) != generated_rows("train", 5, 2)


def test_distractors_do_not_make_another_story() -> None:
    plain = parse("Ann entered the hall.\nThe pear is in the box.")
    noisy = parse("Ann entered the hall.\nBob saw a cat.\nThe pear is in the box.")
    assert hash_story(plain) == hash_story(noisy)
    assert part_of(plain) == part_of(noisy)


def test_no_position_of_the_answer_is_favoured() -> None:
    rows = generated_rows("train", 300, 5)
    positions = [read_item(row).letter for row in rows]
    assert all(0.02 < positions.count(letter) / len(rows) < 0.13 for letter in "ABCDEFGHIJKLMNO")


def test_running_out_of_stories_is_an_error_not_a_loop() -> None:
    tiny = Difficulty(agents=1, orders=(0,), names=1, things=1, containers=2, choices=2, rooms=1, move_probability=0)
    with pytest.raises(DataError, match="no new story"):
        list(generate("train", 50, 0, tiny))


def test_a_difficulty_that_cannot_be_made_lists_why() -> None:
    with pytest.raises(ConfigError, match="containers: must exceed agents"):
        validate(Difficulty, {"agents": 5, "containers": 4, "choices": 3}, where="test")
    with pytest.raises(ConfigError, match="orders"):
        validate(Difficulty, {"orders": [5]}, where="test")


def test_the_authors_rows_load(hitom_samples: Path) -> None:
    rows = read_rows(hitom_samples)
    assert len({row.id for row in rows}) == 60
    # Both prompting types ask about the same six stories.
    assert len({row.cluster for row in rows}) == 6
    assert all(len(read_item(row).choices) == 15 for row in rows)
    assert all("Read the following" not in read_item(row).story for row in rows)


def test_odyssims_parquet_is_read_through_the_registry(tmp_path: Path) -> None:
    record = {key: str(value) for key, value in RECORD.items() if key != "choices"}
    extra = record | {"choices": RECORD["choices"], "deception": "True", "correct_answer": "blue_box"}
    table = pa.Table.from_pylist([{"data_source": "hitom", "prompt": [], "extra_info": extra}])
    pq.write_table(table, tmp_path / "test.parquet")
    (row,) = with_data(registry.get("hitom"), tmp_path / "test.parquet").rows("test", None, 0)
    assert read_item(row).letter == "B"


def test_odyssims_field_names_load_too() -> None:
    theirs = row_from_record(RECORD | {"deception": "True", "correct_answer": "blue_box", "extra_info": {}})
    authors = row_from_record(RECORD | {"deception": True, "answer": "blue_box"})
    assert theirs.data == authors.data
    assert read_item(theirs).letter == "B"


def test_an_option_may_hold_a_comma() -> None:
    assert split_choices("A. red box, old, B. jar") == ("red box, old", "jar")


@pytest.mark.parametrize(
    "change",
    [
        {"choices": "A. red_box, C. blue_box"},
        {"answer": "jar"},
        {"question_order": "x"},
        {"story": None, "choices": 3},
    ],
)
def test_a_malformed_record_is_a_data_error(change: dict[str, object]) -> None:
    with pytest.raises(DataError):
        row_from_record(RECORD | {"deception": False, "answer": "red_box"} | change, where="line 1")


def test_a_malformed_row_is_a_data_error() -> None:
    with pytest.raises(DataError, match="question: Field required"):
        read_item(Row("hitom", "r", "c", {"story": "", "choices": ()}))
