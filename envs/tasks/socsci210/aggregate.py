"""How the answers of a whole study are spread, model against people: what no single answer can show. Pure.

A model that always gives the likeliest answer can be near each respondent and still be like no population. For every
(study, condition, question) with at least `LEAST` answers:
* distance of the distributions, Wasserstein-1 divided by the scale's range (the authors' distribution alignment);
* spread ratio, standard deviation of the model's answers over that of the people's; below 1 the model is too uniform.
Each is averaged over groups, weighted by their answers. Groups with an unscored answer keep the others.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from statistics import pstdev

from envs.registry import SurveyAnswer
from envs.tasks.single import SEAT
from envs.types import Episode, Score

LEAST = 5
ANSWER = "answer"
"""The part of a score that holds the number given."""


def survey_answer(episode: Episode) -> SurveyAnswer | None:
    """The answer of one episode beside the respondent's; None where the episode has no score."""
    outcome = episode.outcomes.get(SEAT)
    if not isinstance(outcome, Score):
        return None
    return SurveyAnswer(
        str(episode.row.data["group"]), outcome.parts.get(ANSWER), float(episode.row.data["response"])
    )


def distribution_measures(episodes: Sequence[Episode]) -> dict[str, float]:
    """Named numbers over all groups that are large enough; empty when none is."""
    given: dict[str, list[float]] = defaultdict(list)
    people: dict[str, list[float]] = defaultdict(list)
    span: dict[str, float] = {}
    for episode in episodes:
        outcome, data = episode.outcomes.get(SEAT), episode.row.data
        if isinstance(outcome, Score) and ANSWER in outcome.parts:
            group = str(data["group"])
            given[group].append(outcome.parts[ANSWER])
            people[group].append(float(data["response"]))
            span[group] = max(span.get(group, 0.0), float(data["high"]) - float(data["low"]))
    large = [group for group in given if len(given[group]) >= LEAST and span[group] > 0]
    if not large:
        return {}
    out = {
        "distance of distributions / range": _mean(
            [(wasserstein(given[g], people[g]) / span[g], len(given[g])) for g in large]
        )
    }
    varied = [g for g in large if pstdev(people[g]) > 0]
    if varied:
        out["spread of answers, model / people"] = _mean(
            [(pstdev(given[g]) / pstdev(people[g]), len(given[g])) for g in varied]
        )
    return out


def wasserstein(a: Sequence[float], b: Sequence[float]) -> float:
    """Wasserstein-1 of two samples of equal size: the mean gap between their sorted values."""
    return sum(abs(x - y) for x, y in zip(sorted(a), sorted(b), strict=True)) / len(a)


def _mean(weighted: Sequence[tuple[float, int]]) -> float:
    return sum(value * n for value, n in weighted) / sum(n for _, n in weighted)
