"""What a chain of agents believes, on small stories worked out by hand and on the authors' own."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from common.files import read_jsonl
from envs.tasks.hitom.generator import Difficulty, make_story
from envs.tasks.hitom.sentences import parse, parse_question, question, render
from envs.tasks.hitom.world import Enter, believes, merge_repeats, trace

LEAVING = """\
1 Ann, Bob and Cleo entered the kitchen.
2 The pear is in the red_box.
3 Ann moved the pear to the blue_box.
4 Ann exited the kitchen.
5 Bob made no movements and stayed in the kitchen for 1 minute.
6 Bob exited the kitchen.
7 Dan likes the blue_box.
8 Cleo moved the pear to the green_box.
9 Cleo exited the kitchen.
10 Ann, Bob and Cleo entered the waiting_room."""


@pytest.mark.parametrize(
    ("chain", "place"),
    [
        ((), "green_box"),
        (("Cleo",), "green_box"),
        (("Ann",), "blue_box"),
        (("Cleo", "Bob"), "blue_box"),
        (("Bob", "Cleo", "Ann", "Bob"), "blue_box"),
    ],
)
def test_a_chain_knows_what_all_of_it_saw_together(chain: tuple[str, ...], place: str) -> None:
    assert believes(parse(LEAVING), chain, "pear") == place


def test_a_stranger_to_the_room_knows_nothing() -> None:
    assert believes(parse(LEAVING), ("Dan",), "pear") is None
    assert believes(parse(LEAVING), ("Ann", "Dan"), "pear") is None


def test_who_comes_back_sees_where_things_are() -> None:
    story = parse(LEAVING + "\n11 Ann and Bob entered the kitchen.\n12 The plum is in the jar.")
    assert believes(story, ("Ann",), "pear") == "green_box"
    assert believes(story, ("Bob", "Ann"), "pear") == "green_box"
    assert believes(story, ("Cleo", "Ann"), "pear") == "blue_box"


@pytest.mark.parametrize(
    ("claim", "chain", "place"),
    [
        ("Bob publicly claimed that pear is in the bag.", ("Ann",), "bag"),  # Bob left after Ann: she trusts him
        ("Bob publicly claimed that pear is in the bag.", ("Cleo",), "green_box"),  # Cleo left last
        ("Bob publicly claimed that pear is in the bag.", ("Bob",), "blue_box"),  # a claim is no belief
        ("Bob publicly claimed that pear is in the bag.", (), "green_box"),
        ("Bob publicly claimed that pear is in the bag.", ("Cleo", "Ann"), "bag"),  # all heard it, all know the order
        ("Bob publicly claimed that pear is in the bag.", ("Ann", "Bob"), "bag"),  # who trusts him thinks he means it
        ("Bob publicly claimed that pear is in the bag.", ("Cleo", "Bob"), "blue_box"),
        ("Cleo privately told Ann that the pear is in the bag.", ("Ann",), "bag"),
        ("Cleo privately told Ann that the pear is in the bag.", ("Cleo", "Ann"), "bag"),
        ("Cleo privately told Ann that the pear is in the bag.", ("Bob", "Ann"), "blue_box"),  # Bob did not hear
        ("Ann privately told Cleo that the pear is in the bag.", ("Ann", "Cleo"), "blue_box"),  # she knows he doubts
    ],
)
def test_a_claim_counts_for_those_who_heard_and_trust(claim: str, chain: tuple[str, ...], place: str) -> None:
    assert believes(parse(f"{LEAVING}\n11 {claim}"), chain, "pear") == place


@given(st.integers(0, 10_000), st.integers(1, 3), st.floats(0, 1), st.floats(0, 1))
@example(276, 2, 1.0, 0.0)
def test_the_tracker_agrees_with_each_event_told_to_every_chain_at_once(
    seed: int, chapters: int, moves: float, tells: float
) -> None:
    """Rules that hold for every story, found another way than the tracker finds its answers."""
    difficulty = Difficulty(agents=4, chapters=chapters, move_probability=moves, tell_probability=tells)
    story = make_story(random.Random(seed), difficulty)
    thing = story.things[0]
    reality = [u.container for u in trace(story, (), thing)]
    for a in story.agents:
        for b in story.agents:
            both = trace(story, (a, b), thing)
            assert believes(story, (a, a, b), thing) == believes(story, (a, b), thing)
            if tells == 0 and a != b:
                ours, theirs = trace(story, (a,), thing), trace(story, (b,), thing)
                shared = {u.index for u in ours} & {u.index for u in theirs}
                assert shared <= {u.index for u in both}
                for update in both:
                    # On coming back one of the two may know already what is news to what both saw together.
                    assert update.index in shared or isinstance(story.events[update.index], Enter)
                    for alone in (ours, theirs):
                        assert [u for u in alone if u.index <= update.index][-1].container == update.container
                assert believes(story, (a, b), thing) == believes(story, (b, a), thing)
                assert {u.container for u in both} <= set(reality)


@given(st.integers(0, 10_000), st.booleans())
def test_sentences_and_events_are_inverse(seed: int, numbered: bool) -> None:
    story = make_story(random.Random(seed), Difficulty(chapters=3, tell_probability=0.7, distractor_probability=0.3))
    assert parse(render(story, numbered=numbered)) == story


@given(st.lists(st.sampled_from(["Ann", "Bob", "Cleo"]), max_size=4).map(merge_repeats))
def test_questions_and_chains_are_inverse(chain: tuple[str, ...]) -> None:
    assert parse_question(question(chain, "green_pepper")) == (chain, "green_pepper")


def test_the_tracker_agrees_with_the_authors_labels_where_these_agree_with_themselves(hitom_samples: Path) -> None:
    """All chain-of-thought labels; the other prompting type asks the same, and labels five questions differently."""
    agreed: Counter[str] = Counter()
    labels: dict[tuple[str, str], set[str]] = {}
    for record in read_jsonl(hitom_samples):
        story = parse(record["story"])
        asked = parse_question(record["question"])
        assert asked is not None
        agreed[record["prompting_type"]] += believes(story, *asked, rules="authors") == record["answer"]
        labels.setdefault((render(story), record["question"]), set()).add(record["answer"])
    assert agreed == {"CoTP": 30, "VP": 25}
    assert sum(len(answers) > 1 for answers in labels.values()) == 5


def test_the_stated_rules_differ_from_the_authors_labels_only_after_claims(hitom_samples: Path) -> None:
    """Their generator forgets claims from order 2 on, against the note that it prints with every question."""
    for record in read_jsonl(hitom_samples):
        if record["prompting_type"] == "CoTP":
            asked = parse_question(record["question"])
            assert asked is not None
            same = believes(parse(record["story"]), *asked, rules="stated") == record["answer"]
            assert same or (record["deception"] and record["question_order"] >= 2)
