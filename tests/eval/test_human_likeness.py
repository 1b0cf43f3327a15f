"""Human-likeness: zero for the same people, large for a caricature, formulas agree with references."""

from __future__ import annotations

import random

import numpy as np
import pytest

from common.errors import UsageError
from envs.tasks.mirrorbench.lexical import hdd, mattr, yules_k
from eval.human_likeness import Utterance, human_likeness
from eval.human_likeness.classifier import FEATURES, auroc
from eval.human_likeness.spread import TRAITS, between_person_sd, self_similarity
from eval.human_likeness.style import HABITS, SLOP, jensen_shannon, kolmogorov_smirnov, rate, wasserstein
from eval.human_likeness.text import normalise, words
from eval.human_likeness.words import burrows_delta, log_odds
from eval.report import HumanLikeness
from eval.report.write import render_report

scipy_stats = pytest.importorskip("scipy.stats", reason="scipy is in the extra `eval`")
pytest.importorskip("sklearn", reason="scikit-learn is in the extra `eval`")

VOCABULARY = """
    the of and to a in that it is was i for you he be with as at have this not but they my no yes
""".split()  # noqa: SIM905


def people(seed: int, *, conversations: int = 24, slop: float = 0.0, prefix: str = "c") -> list[Utterance]:
    rng = random.Random(seed)
    out = []
    for c in range(conversations):
        terse = rng.uniform(1.6, 2.6)
        for turn in range(4):
            n = max(2, int(rng.lognormvariate(terse, 0.4)))
            text = " ".join(rng.choice(VOCABULARY) for _ in range(n)) + rng.choice(["", ".", "?", "!"])
            if rng.random() < slop:
                text = f"I understand your tapestry — let us delve. {text.capitalize()}"
            out.append(Utterance(text, f"{prefix}{c}", person=f"p{c}", prompt=f"q{turn}", turn=turn))
    return out


def test_the_same_kind_of_people_are_within_the_floor_and_a_caricature_is_not() -> None:
    human = people(1, prefix="h")
    same = human_likeness(people(2, prefix="g"), human, name="same", with_classifier=False)
    different = human_likeness(people(3, slop=0.7, prefix="g"), human, name="slop", with_classifier=False)
    within = [sum(m.within_floor for m in r.measures) / len(r.measures) for r in (same, different)]
    assert within[0] > 0.75 > within[1]
    by_name = {m.name: m for m in different.measures}
    for name in ("slop", "em dash", "word frequencies, JS", "words per turn, W1"):
        assert not by_name[name].within_floor and by_name[name].distance.low <= by_name[name].distance.value
    assert by_name["slop"].generated is not None and by_name["slop"].generated > 10 and by_name["slop"].human == 0
    assert {"delve", "tapestry"} <= {s.word for s in different.word_shifts if s.z > 0}
    assert same == human_likeness(people(2, prefix="g"), human, name="same", with_classifier=False), "seeded"
    html, _ = render_report("t", [HumanLikeness("H", different)])
    assert "delve" in html and "human–human floor" in html


def test_classifier_tells_a_caricature_but_not_equals_and_never_by_conversation() -> None:
    human = people(1, prefix="h")
    assert auroc(people(2, slop=0.9, prefix="g"), human, FEATURES[0], 0)[0] > 0.85
    # The same conversations on both sides: remembering them would give more than chance.
    value, low, high = auroc(people(4, prefix="x"), people(5, prefix="x"), FEATURES[1], 0)
    assert 0.3 < value < 0.7 and low <= value <= high


def test_distances_between_distributions_agree_with_scipy() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(0, 1, 83), rng.normal(0.4, 1.5, 61)
    assert wasserstein(a, b) == pytest.approx(scipy_stats.wasserstein_distance(a, b))
    assert kolmogorov_smirnov(a, b) == pytest.approx(scipy_stats.ks_2samp(a, b).statistic)
    from scipy.spatial.distance import jensenshannon

    p, q = np.array([3.0, 0, 7]), np.array([1.0, 5, 2])
    assert jensen_shannon(p, q) == pytest.approx(jensenshannon(p + 1, q + 1, base=2) ** 2)


def test_lexical_diversity_by_its_definitions() -> None:
    assert mattr(["a", "b", "a", "b"], window=2) == 1.0
    assert mattr(["a", "a", "a", "b"], window=2) == pytest.approx((0.5 + 0.5 + 1.0) / 3)
    tokens = ["a"] * 3 + ["b"] * 2 + ["c"]
    expected = sum(1 - scipy_stats.hypergeom(6, c, 4).pmf(0) for c in (3, 2, 1)) / 4
    assert hdd(tokens, sample=4) == pytest.approx(expected)
    assert yules_k(tokens) == pytest.approx(1e4 * (9 + 4 + 1 - 6) / 36)


def test_log_odds_names_the_words_and_is_antisymmetric() -> None:
    a, b = people(1, slop=0.5), people(2)
    forward, backward = ({word: z for word, z, *_ in log_odds(x, y)} for x, y in ((a, b), (b, a)))
    assert max(forward, key=forward.__getitem__) in {"delve", "tapestry", "understand", "let", "us", "your"}
    assert all(forward[w] == pytest.approx(-backward[w]) for w in forward)


def test_burrows_delta_is_zero_for_equal_profiles() -> None:
    assert burrows_delta(people(1), people(1)) == 0.0
    assert burrows_delta(people(1), people(2, slop=0.8)) > burrows_delta(people(1), people(2))


def test_one_average_person_is_seen_as_collapse() -> None:
    varied = people(1)
    average = [Utterance("I am fine, thank you.", u.conversation, u.person, u.prompt) for u in varied]
    trait = TRAITS["log words per turn"]
    assert between_person_sd(varied, trait) > 0.2 and between_person_sd(average, trait) == 0.0
    assert self_similarity(average) == 1.0 and self_similarity(varied) < 0.2


def test_habits_find_what_people_do() -> None:
    def share(name: str, text: str) -> float:
        return rate(HABITS[name])([Utterance(text, "c")])

    assert share("starts lower-case", "ok sure") == 1 and share("starts lower-case", "Ok") == 0
    assert share("no final punctuation", "see you") == 1 and share("no final punctuation", "See you. ") == 0
    assert share("dropped apostrophe", "I dont know") == 1 and share("lower-case i", "so i left") == 1
    assert SLOP.search("Let's delve into it") and not SLOP.search("we went to the shop")
    assert words("Don’t STOP, 2 cats") == ("don't", "stop", "2", "cats") and normalise("Ann: hi ") == "hi"


def test_too_little_text_is_refused() -> None:
    with pytest.raises(UsageError, match="too few"):
        human_likeness(people(1, conversations=3), people(2), name="x")
