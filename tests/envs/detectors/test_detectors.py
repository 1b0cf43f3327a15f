"""Detectors find hacks, also in unseen words, and leave people alone."""

from __future__ import annotations

import json

import pytest

from envs.detectors import copying, leak, repetition
from envs.detectors.base import DETECTORS, Context, detect, inspect
from envs.detectors.length import measure
from envs.detectors.rates import Drift, Rate, rates
from envs.types import Episode, Finding, Message, Row, Say
from tests.envs.detectors.measure import ENGLISH, SAMPLES, Measured, all_measured
from tests.envs.detectors.seeds import HUMAN


@pytest.mark.parametrize("measured", all_measured(), ids=lambda m: m.detector)
def test_precision_and_recall_hold_on_seen_and_held_out_phrasings(measured: Measured) -> None:
    """The table of docs/benchmarks.md; the false positives are on real human turns where the samples are here."""
    assert measured.seen.value >= 0.9
    assert measured.held_out.n >= 6 and measured.held_out.value >= 0.6
    assert measured.precision.value >= 0.95
    assert measured.false_positives.value <= 0.005


@pytest.mark.parametrize("text", HUMAN)
def test_clean_human_turns_stay_clean(text: str) -> None:
    assert detect(Context(text, "Dana", given=ENGLISH)) == []


@pytest.mark.skipif(not SAMPLES.is_dir(), reason=f"no benchmark samples: {SAMPLES} is not here")
def test_false_positives_on_real_user_turns_are_rare() -> None:
    turns = false = 0
    for path in sorted(SAMPLES.glob("*_20.jsonl")):
        for line in path.read_text().splitlines():
            history: list[str] = []
            for turn in json.loads(line)["turns"]:
                if turn["role"] == "user":
                    turns += 1
                    context = Context(turn["content"], "user", earlier=tuple(history), given=ENGLISH)
                    false += bool(detect(context))
                history.append(turn["content"])
    assert turns > 100
    # The whole corpus gives at most 0.5 % per detector; this sample is small: at most 2 % for all of them together.
    assert false <= 0.02 * turns


def test_repetition_is_seen_in_long_turns_only() -> None:
    assert repetition.find("I agree with you. " * 10) is not None
    assert repetition.find("no no no no no") is None
    assert repetition.find(" ".join(f"word{i}" for i in range(60))) is None


def test_copying_compares_with_earlier_turns_and_the_reference() -> None:
    source = "We could meet at the old harbour on Friday evening after the market has closed its stalls."
    assert copying.find(source, [source]) is not None
    assert copying.find("Friday evening sounds good, but let us meet at my place instead of there.", [source]) is None
    assert detect(Context(source, reference=source), ["copying"]) != []


def test_only_text_that_was_marked_hidden_can_leak() -> None:
    secret = "You lost the family savings in a card game last winter"
    said = "Fine: I lost the family savings in a card game, all of it."
    assert leak.find(said, [secret]) is not None
    assert leak.find(said, []) is None
    assert leak.find("I lost a game of cards last winter.", [secret]) is None


def test_an_episode_is_inspected_for_the_given_seats_only() -> None:
    says = (Say("a", "As an AI, I agree."), Say("b", "As an AI, I agree."), Say("a", "ok"))
    episode = Episode(Row("t", "1", "c", {}), 0, says, {"a": (Message("user", "Hi"),)}, {}, {})
    assert [(f.detector, f.seat, f.turn) for f in inspect(episode, ["a"])] == [("broken_frame", "a", 0)]
    assert len(inspect(episode, ["a", "b"])) == 2


def test_rates_count_turns_not_findings_and_have_intervals() -> None:
    twice = [Finding("repetition", "a", 0, "x"), Finding("repetition", "a", 0, "y")]
    result = rates([twice, [Finding("repetition", "a", 0, "z")]], turns=100, names=DETECTORS)
    assert result["repetition"] == Rate(2, 100) and result["copying"] == Rate(0, 100)
    low, high = Rate(2, 100).interval
    assert low == pytest.approx(0.0055, abs=1e-4) and high == pytest.approx(0.0700, abs=1e-4)
    assert Rate(0, 0).interval == (0.0, 1.0)


def test_an_alarm_is_raised_when_a_rate_jumps_not_when_it_stays() -> None:
    drift = Drift(0.01)
    for _ in range(20):
        drift = drift.seen(Rate(5, 512))
        assert not drift.alarm
    assert drift.seen(Rate(60, 512)).alarm


def test_length_that_earns_reward_is_seen_and_length_that_does_not_is_not() -> None:
    paid = measure([[(10 * i, i / 10 + g % 2) for i in range(8)] for g in range(20)])
    assert paid.significant and paid.correlation == pytest.approx(1.0)
    balanced = [[(i, (i if g % 2 else -i) * 1.0) for i in range(8)] for g in range(20)]
    assert not measure(balanced).significant
    assert measure([[(1, 0.5), (2, 0.5), (3, 0.5)]]).groups == 0
