"""Survey tasks as distributions: does the model answer each question as differently as people do? Pure; numpy only.

Per question (TaskSpec.survey says which one an episode answered): Wasserstein-1 on the scale, divided by the range of
the answers seen, for numbers; Jensen-Shannon divergence (bits) of the answers as categories; variance ratio model
over people (1: as spread; near 0: one average answer). Each beside its human-human floor: people in two halves,
median of seeded splits. A person counts once, however often the model answered in the person's place. A mean over
questions weights them equally.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from common.config import Config
from common.seeds import derive_seed
from envs.registry import SurveyAnswer
from eval.human_likeness.style import wasserstein
from eval.stats import F64

LEAST = 5
"""Readable answers of both sides that a question needs."""
SPLITS = 40


class QuestionDistribution(Config):
    """One question."""

    question: str
    n: int
    unreadable: int
    """Answers of the model that could not be read: not in the distribution, counted."""
    w1: float | None
    """On the scale's range; None for categories."""
    w1_floor: float | None
    js: float
    js_floor: float
    variance_ratio: float | None
    """None for categories, or where all people agree."""


class SurveyResult(Config):
    """All questions, and the unweighted means over them."""

    questions: tuple[QuestionDistribution, ...]
    left_out: int
    """Questions with too few answers."""
    means: dict[str, float]

    def lines(self) -> list[str]:
        return [f"{name}: {value:.3f}" for name, value in self.means.items()]


Answered = tuple[str, SurveyAnswer]
"""The id of the row, which stands for one person's answer to one question, and an answer in that person's place."""


def survey(answers: Iterable[Answered], *, seed: int = 0) -> SurveyResult:
    """Compare the model's and the people's answers question by question."""
    grouped: dict[str, list[Answered]] = defaultdict(list)
    for row, answer in answers:
        grouped[answer.question].append((row, answer))
    found = [_question(name, grouped[name], seed) for name in sorted(grouped)]
    questions = tuple(q for q in found if q is not None)
    return SurveyResult(questions=questions, left_out=len(found) - len(questions), means=_means(questions))


def _means(questions: Sequence[QuestionDistribution]) -> dict[str, float]:
    fields = ("w1", "w1_floor", "js", "js_floor", "variance_ratio")
    values = {name: [v for q in questions if (v := getattr(q, name)) is not None] for name in fields}
    return {name: float(np.mean(v)) for name, v in values.items() if v}


def _question(name: str, answers: Sequence[Answered], seed: int) -> QuestionDistribution | None:
    given = [a.answer for _, a in answers if a.answer is not None]
    people = list({row: a.human for row, a in answers}.values())
    if min(len(given), len(people)) < LEAST:
        return None
    rng = np.random.Generator(np.random.PCG64(derive_seed(seed, "survey", name)))
    numeric = all(isinstance(v, int | float) for v in (*given, *people))
    w1 = w1_floor = ratio = None
    if numeric:
        a, b = np.array(given, dtype=np.float64), np.array(people, dtype=np.float64)
        span = float(max(a.max(), b.max()) - min(a.min(), b.min())) or 1.0

        def scaled(x: Sequence[object], y: Sequence[object]) -> float:
            return wasserstein(np.asarray(x, np.float64), np.asarray(y, np.float64)) / span

        w1, w1_floor = scaled(given, people), _floor(people, scaled, rng)
        ratio = float(a.var() / b.var()) if b.var() > 0 else None
    return QuestionDistribution(
        question=name,
        n=len(given),
        unreadable=len(answers) - len(given),
        w1=w1,
        w1_floor=w1_floor,
        js=_categories_js(given, people),
        js_floor=_floor(people, _categories_js, rng),
        variance_ratio=ratio,
    )


def _floor(
    people: Sequence[float | str],
    distance: Callable[[Sequence[object], Sequence[object]], float],
    rng: np.random.Generator,
) -> float:
    """Median distance of two halves of the people."""
    out = []
    for _ in range(SPLITS):
        order = rng.permutation(len(people))
        left = [people[i] for i in order[: len(people) // 2]]
        right = [people[i] for i in order[len(people) // 2 :]]
        out.append(distance(left, right))
    return float(np.median(out))


def _categories_js(a: Sequence[object], b: Sequence[object]) -> float:
    """Jensen-Shannon divergence in bits of two samples of categories, unsmoothed: 0 equal, 1 disjoint."""
    names = sorted({str(v) for v in (*a, *b)})
    index = {name: i for i, name in enumerate(names)}
    p, q = _shares(a, index), _shares(b, index)
    m = (p + q) / 2
    return float((_kl(p, m) + _kl(q, m)) / 2)


def _shares(values: Sequence[object], index: dict[str, int]) -> F64:
    counts = np.bincount([index[str(v)] for v in values], minlength=len(index)).astype(np.float64)
    return np.asarray(counts / counts.sum())


def _kl(p: F64, m: F64) -> float:
    used = p > 0
    return float(np.sum(p[used] * np.log2(p[used] / m[used])))
