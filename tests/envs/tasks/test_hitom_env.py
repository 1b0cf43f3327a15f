"""Playing, scoring and explaining Hi-ToM questions."""

from __future__ import annotations

import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs.env import Done, Feedback
from envs.tasks.hitom.corpus import spoken_answer
from envs.tasks.hitom.env import SEAT, HitomEnv, read_choice
from envs.tasks.hitom.levels import LEVELS
from envs.tasks.hitom.rows import LETTERS, Item, generated_rows, read_item
from envs.tasks.hitom.task import joint_accuracy
from envs.tasks.single import Asked
from envs.types import Episode, Row, Score

ROWS = {name: generated_rows("train", 60, 4, level.difficulty, prompt=level.prompt) for name, level in LEVELS.items()}
ROW = ROWS["hitom"][0]


def _reply(text: str, profile: str = "strict", row: Row = ROW) -> tuple[HitomEnv, Asked[Item], Score]:
    env = HitomEnv("soul" if profile == "soul" else "strict")
    state = env.hear(env.start(row, random.Random(0)), SEAT, text)
    outcome = env.score(state)[SEAT]
    assert isinstance(outcome, Score)
    return env, state, outcome


def test_the_reader_answers_once() -> None:
    env = HitomEnv()
    state = env.start(ROW, random.Random(0))
    before = env.view(state, SEAT)
    assert env.turn(state) == (SEAT,)
    after = env.hear(state, SEAT, "hm")
    assert env.turn(after) == Done()
    assert list(env.view(after, SEAT))[:1] == list(before) and env.turn(state) == (SEAT,)


def test_the_letter_and_the_text_of_the_answer_both_count() -> None:
    item = read_item(ROW)
    for text in (item.letter, item.letter.lower(), f"{item.letter}.", item.answer, f"{item.letter}. {item.answer}"):
        assert _reply(f"I think so. <answer> {text} </answer>")[2].value == 1.0


@pytest.mark.parametrize(
    "text",
    ["", "B", "<answer></answer>", "<answer>the moon</answer>", "<answer>A", "<answer>AB</answer>", "answer: A"],
)
def test_an_unreadable_reply_is_the_readers_own_fault(text: str) -> None:
    outcome = _reply(text)[2]
    assert outcome.value == 0.0 and outcome.format_error


@pytest.mark.parametrize("profile", ["strict", "soul"])
def test_dumping_every_choice_earns_nothing(profile: str) -> None:
    item = read_item(ROW)
    others = [letter for letter in LETTERS[: len(item.choices)] if letter != item.letter]
    dump = " ".join(f"<answer>{letter}</answer>" for letter in [*others, item.letter])
    assert _reply(dump, profile)[2].value == 0.0
    assert _reply(f"<answer>{', '.join(item.choices)}</answer>", profile)[2].value == 0.0


def test_soul_reads_the_first_block_and_letters_only() -> None:
    item = read_item(ROW)
    wrong = "A" if item.letter != "A" else "B"
    assert _reply(f"<answer>{item.letter}</answer><answer>{wrong}</answer>", "soul")[2].value == 1.0
    assert _reply(f"<answer>{item.answer}</answer>", "soul")[2].value == 0.0


def test_what_is_only_thought_is_no_answer() -> None:
    item = read_item(ROW)
    wrong = "A" if item.letter != "A" else "B"
    assert _reply(f"<think><answer>{wrong}</answer></think><answer>{item.letter}</answer>")[2].value == 1.0


@given(st.text(max_size=200), st.sampled_from(["strict", "soul"]))
def test_any_text_gets_a_score_in_bounds(text: str, profile: str) -> None:
    outcome = _reply(text, profile)[2]
    assert outcome.value in (0.0, 1.0)


@pytest.mark.parametrize("name", LEVELS)
def test_feedback_explains_every_wrong_choice_and_never_tells_the_answer(name: str) -> None:
    reasons = set()
    for row in ROWS[name]:
        item = read_item(row)
        for choice in item.choices:
            env, state, outcome = _reply(f"<answer>{choice}</answer>", row=row)
            feedback = env.feedback(state, SEAT)
            if choice == item.answer:
                assert feedback is None and outcome.value == 1.0
                continue
            assert isinstance(feedback, Feedback) and feedback.sees_gold
            assert choice in feedback.text
            assert item.answer not in re.findall(r"\w+", feedback.text)
            assert f"{item.letter}." not in feedback.text and f"<answer>{item.letter}" not in feedback.text
            reasons.add(" ".join(feedback.text.split()[-3:]))
    assert len(reasons) > 5


def test_feedback_on_form_is_written_without_the_answer() -> None:
    env, state, _ = _reply("no idea")
    feedback = env.feedback(state, SEAT)
    assert feedback is not None and not feedback.sees_gold


@pytest.mark.parametrize("name", LEVELS)
def test_privileged_context_ends_with_the_answer(name: str) -> None:
    for row in ROWS[name]:
        text = HitomEnv().privileged(row, SEAT)
        assert text is not None and text.endswith(f" {read_item(row).answer}.")


@pytest.mark.parametrize("name", LEVELS)
def test_the_spoken_answer_of_the_corpus_scores_full_marks(name: str) -> None:
    for row in ROWS[name]:
        item = read_item(row)
        assert read_choice(item, spoken_answer(item), "strict") == item.answer


def test_joint_accuracy_needs_every_order_up_to_k() -> None:
    def episode(story: str, order: int, value: float) -> Episode:
        row = Row("hitom", f"{story}-{order}", story, {"order": order})
        return Episode(row, 0, (), {}, {}, {SEAT: Score(value)})

    episodes = [episode("s", k, 1.0) for k in range(3)] + [episode("t", 0, 1.0), episode("t", 1, 0.0)]
    joint = joint_accuracy(episodes)
    assert joint["joint accuracy, orders 0 to 0"] == 1.0
    assert joint["joint accuracy, orders 0 to 1"] == 0.5
    assert joint["joint accuracy, orders 0 to 2"] == 1.0
    assert "joint accuracy, orders 0 to 3" not in joint
    again = [episode("s", 0, 1.0), episode("s", 1, 0.0)]
    assert joint_accuracy([*episodes, *again])["joint accuracy, orders 0 to 1"] == pytest.approx(1 / 3)
