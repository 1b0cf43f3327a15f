"""Word choice and lexical diversity.

Jensen-Shannon divergence of word frequencies; log-odds ratio with an informative Dirichlet prior (Monroe, Colaresi
and Quinn 2008), which names the words to blame; Burrows' Delta over function words (Burrows 2002), which is robust to
topic; MATTR (Covington and McFall 2010), HD-D (McCarthy and Jarvis 2007) and Yule's K (Yule 1944), as MirrorBench
computes them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np

from envs.tasks.mirrorbench.lexical import hdd, mattr, yules_k
from eval.human_likeness.style import MeasureSpec, Side, jensen_shannon
from eval.human_likeness.text import words
from eval.stats import F64

FUNCTION_WORDS: tuple[str, ...] = tuple(
    """
    the of and to a in that it is was i for on you he be with as by at have are this not but had his
    they from she which or we an there her were one do been all their has would will what if can when so
    no out up about them more him could into than then other some very my me our your its only over just
    also how because any after before even where who did now here too most such these those while should
    though through down off again why well much still yet never ever own same each both few between
    under against during without within upon am being does doing having i'm i've i'd i'll don't can't
    it's that's you're we're they're didn't doesn't isn't wasn't won't let's there's
    """.split()  # noqa: SIM905
)

_VOCABULARY = 5_000


def counts(side: Side) -> Counter[str]:
    return Counter(w for u in side for w in words(u.text))


def word_js(a: Side, b: Side) -> float:
    """Jensen-Shannon divergence (bits) over the most frequent words of both sides together."""
    left, right = counts(a), counts(b)
    vocabulary = [w for w, _ in (left + right).most_common(_VOCABULARY)]
    return jensen_shannon(_vector(left, vocabulary), _vector(right, vocabulary))


def _vector(counter: Counter[str], vocabulary: Sequence[str]) -> F64:
    return np.array([counter[w] for w in vocabulary], dtype=np.float64)


def log_odds(
    a: Side, b: Side, *, min_count: int = 5, prior_words: float = 500.0
) -> list[tuple[str, float, float, float]]:
    """(word, z, rate per 1,000 words in a, in b) for words that occur at least `min_count` times in all.

    z > 0: a uses it more. The prior is the pooled distribution, worth `prior_words` words.
    """
    left, right = counts(a), counts(b)
    pooled = left + right
    total = sum(pooled.values())
    n_left, n_right = sum(left.values()), sum(right.values())
    if not n_left or not n_right:
        return []
    table = []
    for word, count in pooled.items():
        if count < min_count:
            continue
        prior = prior_words * count / total
        y, z = left[word] + prior, right[word] + prior
        delta = math.log(y / (n_left + prior_words - y)) - math.log(z / (n_right + prior_words - z))
        table.append(
            (word, delta / math.sqrt(1 / y + 1 / z), 1000 * left[word] / n_left, 1000 * right[word] / n_right)
        )
    return sorted(table, key=lambda row: (-abs(row[1]), row[0]))


def burrows_delta(a: Side, b: Side) -> float:
    """Mean absolute difference of function-word frequencies in units of their spread over conversations."""
    left, right = _function_profile(a), _function_profile(b)
    spread = np.concatenate([left, right]).std(axis=0)
    used = spread > 0
    if not used.any():
        return 0.0
    return float(np.mean(np.abs(left.mean(axis=0) - right.mean(axis=0))[used] / spread[used]))


def _function_profile(side: Side) -> F64:
    """Relative frequencies per conversation, [conversations, words]."""
    per: dict[str, F64] = {}
    for u in side:
        per[u.conversation] = per.get(u.conversation, 0.0) + _function_counts(u.text)
    rows = np.stack(list(per.values()))  # [conversations, words + 1]
    return rows[:, :-1] / np.maximum(1, rows[:, -1:])


@lru_cache(maxsize=100_000)
def _function_counts(text: str) -> F64:
    """Counts of the function words, and of all words at the end."""
    found = Counter(words(text))
    return np.array([*(found[w] for w in FUNCTION_WORDS), found.total()], dtype=np.float64)


def _tokens(side: Side) -> list[str]:
    return [w for u in side for w in words(u.text)]


def _equal_budget(a: Side, b: Side) -> tuple[list[str], list[str]]:
    """Diversity depends on length: both sides are cut to the shorter one."""
    left, right = _tokens(a), _tokens(b)
    size = min(len(left), len(right))
    return left[:size], right[:size]


def _gap(value: Callable[[Sequence[str]], float]) -> Callable[[Side, Side], float]:
    def distance(a: Side, b: Side) -> float:
        left, right = _equal_budget(a, b)
        return abs(value(left) - value(right))

    return distance


def _of_tokens(value: Callable[[Sequence[str]], float]) -> Callable[[Side], float]:
    return lambda side: value(_tokens(side))


MEASURES: tuple[MeasureSpec, ...] = (
    MeasureSpec("word frequencies, JS", "word choice", "bits", word_js),
    MeasureSpec("function words, Burrows' Delta", "word choice", "standard deviations", burrows_delta),
    *(
        MeasureSpec(name, "lexical diversity", unit, _gap(value), _of_tokens(value))
        for name, unit, value in (
            ("MATTR", "difference", mattr), ("HD-D", "difference", hdd), ("Yule's K", "difference", yules_k)
        )
    ),
)  # fmt: skip
