"""The generated corpus on disk."""

from __future__ import annotations

from pathlib import Path

from common.files import read_jsonl
from envs.tasks.corpus import GeneratedCorpusConfig, write_generated_corpus
from envs.tasks.hitom.levels import LEVELS
from envs.tasks.hitom.rows import generated_rows, prompt_text, read_item

CONFIG = GeneratedCorpusConfig(stories=60, dialogues=10, heldout_stories=20, heldout_dialogues=5)


def test_parts_hold_different_conversations_of_both_sources(tmp_path: Path) -> None:
    paths = write_generated_corpus(tmp_path, CONFIG)
    train, heldout = list(read_jsonl(paths["train"])), list(read_jsonl(paths["heldout"]))
    assert (len(train), len(heldout)) == (60 + 20, 20 + 10)
    assert {row["data_source"] for row in train} == {row["data_source"] for row in heldout} and len(train[0]) == 4
    assert not {row["id"] for row in train} & {row["id"] for row in heldout}
    assert all(row["messages"][-1]["role"] == "assistant" for row in train + heldout)


def test_equal_configuration_gives_equal_bytes(tmp_path: Path) -> None:
    first, second = (write_generated_corpus(tmp_path / name, CONFIG) for name in "ab")
    assert first["train"].read_bytes() == second["train"].read_bytes()


def test_a_story_conversation_opens_like_the_tasks_own_prompt(tmp_path: Path) -> None:
    """So that a midtrained model can be asked the task's questions without any other prompt."""
    level = LEVELS["hitom_mini"]
    prompts = {
        prompt_text(read_item(row)) for row in generated_rows("train", 60, 0, level.difficulty, prompt=level.prompt)
    }
    rows = read_jsonl(write_generated_corpus(tmp_path, CONFIG)["train"])
    stories = [row for row in rows if row["data_source"].startswith("tom_hitom")]
    assert len(stories) == 60
    openings = [row["messages"][0]["content"].split("\n\n") for row in stories]
    assert all(opening[0] in prompts for opening in openings)
    # Some hold what training by reinforcement appends: a teacher's context, or feedback.
    assert {opening[1].split()[0] for opening in openings if len(opening) > 1} == {"What", "The"}
