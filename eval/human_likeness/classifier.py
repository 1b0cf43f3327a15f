"""Two-sample classifier test: how well can a simple classifier tell generated from human turns?

Hashed character 2-to-4-grams with logistic regression; AUROC on held-out *conversations* (grouped folds), so that
it cannot win by recognising a conversation. 0.5: indistinguishable. It is run on the text as it is and on text whose
letter case, punctuation and spacing are removed, because a trivial format difference otherwise hides the rest.

Needs scikit-learn (extra `eval`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from common.errors import UsageError
from envs import ranks
from eval.human_likeness.text import Utterance, normalise, words

FOLDS = 5
MAX_TURNS = 2_000
_BOOTSTRAP = 200


@dataclass(frozen=True)
class Feature:
    """What the classifier sees of a turn."""

    name: str
    view: Callable[[str], str]


FEATURES = (
    Feature("as written", lambda text: re.sub(r"\s+", " ", normalise(text))),
    Feature("words only", lambda text: " ".join(words(normalise(text)))),
)


def auroc(
    generated: Sequence[Utterance], human: Sequence[Utterance], feature: Feature, seed: int
) -> tuple[float, float, float]:
    """(AUROC, low, high) with grouped folds; the interval resamples conversations."""
    try:
        from sklearn.feature_extraction.text import HashingVectorizer
        from sklearn.linear_model import LogisticRegression
        from sklearn.model_selection import StratifiedGroupKFold
    except ImportError as e:
        raise UsageError("the two-sample classifier needs scikit-learn", fix="pip install 'osim[eval]'") from e
    rng = np.random.Generator(np.random.PCG64(seed))
    positives = _subsample(generated, rng)
    sample = [*positives, *_subsample(human, rng)]
    # Hashing has no fitted state: nothing of a held-out fold can leak into the features.
    vectors = HashingVectorizer(analyzer="char_wb", ngram_range=(2, 4), n_features=2**15, alternate_sign=False)
    features = vectors.transform([feature.view(u.text) for u in sample])
    labels = np.array([1] * len(positives) + [0] * (len(sample) - len(positives)))
    # A conversation may occur on both sides (simulated and real): it stays in one fold.
    groups = np.array([u.conversation for u in sample])
    scores = np.zeros(len(sample))
    folds = StratifiedGroupKFold(n_splits=min(FOLDS, len(set(groups))), shuffle=True, random_state=seed % 2**32)
    for train, test in folds.split(features, labels, groups):
        if len(set(labels[train])) < 2:
            continue
        model = LogisticRegression(solver="liblinear", C=10.0, max_iter=200)
        model.fit(features[train], labels[train])
        scores[test] = model.decision_function(features[test])
    value = ranks.auroc(scores[labels == 1], scores[labels == 0])
    names = sorted(set(groups))
    members = {name: np.flatnonzero(groups == name) for name in names}
    draws = []
    for _ in range(_BOOTSTRAP):
        pick = np.concatenate([members[names[i]] for i in rng.integers(0, len(names), len(names))])
        drawn, positive = scores[pick], labels[pick] == 1
        if 0 < positive.sum() < len(pick):
            draws.append(ranks.auroc(drawn[positive], drawn[~positive]))
    low, high = np.quantile(draws, [0.025, 0.975]) if draws else (0.0, 1.0)
    return value, float(low), float(high)


def _subsample(side: Sequence[Utterance], rng: np.random.Generator) -> list[Utterance]:
    if len(side) <= MAX_TURNS:
        return list(side)
    return [side[i] for i in np.sort(rng.choice(len(side), MAX_TURNS, replace=False))]
