"""Surveys as distributions, mode collapse, and a run's turns against people's."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from envs import registry
from envs.registry import SurveyAnswer
from envs.types import Episode, Row, Say
from eval.human_likeness.collapse import mode_collapse
from eval.human_likeness.from_run import said
from eval.human_likeness.text import Utterance
from eval.survey import survey


def people(n: int, seed: int = 0) -> list[float]:
    rng = random.Random(seed)
    return [float(rng.choice([1, 2, 2, 3, 4, 5, 6, 7])) for _ in range(n)]


def answered(answers: list[SurveyAnswer]) -> list[tuple[str, SurveyAnswer]]:
    """One row each."""
    return [(str(k), answer) for k, answer in enumerate(answers)]


def test_people_count_once_however_often_the_model_answers() -> None:
    rows = answered([SurveyAnswer("q", a, h) for a, h in zip(people(12, 2), people(12, 1), strict=True)])
    (once,), (thrice,) = survey(rows).questions, survey(rows * 3).questions
    assert (once.n, thrice.n) == (12, 36)
    # The same people, so the same floor: more copies of them would look more alike.
    assert (once.w1, once.w1_floor, once.js_floor) == (thrice.w1, thrice.w1_floor, thrice.js_floor)
    assert survey(rows[:4] * 3).left_out == 1


def test_a_model_that_answers_as_people_do_is_at_the_floor_and_an_average_one_is_not() -> None:
    human, model = people(200, 1), people(200, 2)
    (same,) = survey(answered([SurveyAnswer("q", a, h) for a, h in zip(model, human, strict=True)])).questions
    (average,) = survey(answered([SurveyAnswer("q", 4.0, h) for h in human])).questions
    assert same.w1 is not None and average.w1 is not None and same.w1_floor is not None
    assert same.w1 < 0.06 and same.js < 0.03 and same.variance_ratio == pytest.approx(1.0, abs=0.3)
    assert average.w1 > 4 * same.w1_floor and average.js > 0.3 and average.variance_ratio == 0.0


def test_unreadable_answers_are_counted_and_small_questions_left_out() -> None:
    answers = [SurveyAnswer("big", None if k < 3 else 1.0, 1.0) for k in range(10)]
    found = survey(answered([*answers, SurveyAnswer("small", 1.0, 1.0)]))
    assert [(q.question, q.n, q.unreadable) for q in found.questions] == [("big", 7, 3)] and found.left_out == 1


def test_categories_have_a_divergence_but_no_distance() -> None:
    (q,) = survey(answered([SurveyAnswer("q", "cnn", "fox") for _ in range(10)])).questions
    assert q.js == pytest.approx(1.0) and q.w1 is None and q.variance_ratio is None


def utterances(texts: list[list[str]]) -> list[Utterance]:
    return [Utterance(t, f"c{i}", prompt=f"p{i}") for i, group in enumerate(texts) for t in group]


def test_collapse_is_seen_within_prompts_and_needs_several_samples() -> None:
    topics = ["the bus was late", "my cat is ill today", "we won that match", "rain again all week"]
    endings = ("honestly", "lol no way", "you know what")
    varied = mode_collapse(utterances([[f"{topic} {end}" for end in endings] for topic in topics]))
    stuck = mode_collapse(utterances([[t, t, t] for t in topics]))
    assert varied is not None and stuck is not None
    assert stuck.within.value == 1.0 and stuck.distinct == pytest.approx(1 / 3) and stuck.between < 0.2
    assert varied.within.value < 0.9 and varied.distinct == 1.0 and varied.samples == 3
    assert mode_collapse(utterances([["a b"], ["c d"]])) is None


def test_collapse_keeps_the_prompts_of_one_person_together() -> None:
    def measured(person: str) -> int:
        texts = [
            Utterance(t, f"c{i}", person.format(i % 2), f"p{i}") for i in range(6) for t in ("so it is", "no way")
        ]
        found = mode_collapse(texts)
        assert found is not None and found.within.n == 6
        return found.within.clusters

    assert (measured("person {}"), measured("")) == (2, 6)


def test_only_an_opening_turn_is_a_sample_of_the_same_situation_in_every_epoch() -> None:
    spec = registry.get("mirrorbench")
    says = (Say("user", "<think>hm</think>hi there"), Say("assistant", "Hello."), Say("user", "ok and then"))
    episode = Episode(Row("mirrorbench", "7", "c", {}), 0, says, {}, {}, {})
    assert [(u.text, u.prompt) for u in said(spec, episode)] == [("hi there", "mirrorbench/7"), ("ok and then", "")]
    answered_only = replace(episode, says=says[1:])
    assert [u.prompt for u in said(spec, answered_only)] == [""]
