"""Mode collapse over k samples of one situation: how alike are they, beside answers to different situations?

Needs epochs > 1 at a temperature above 0. `within`: mean word-bigram Jaccard similarity of samples of one prompt;
`between`: the same for answers to different prompts (seeded pairs); `distinct`: share of different texts among the
samples of a prompt. A model that says the same whatever it is asked has both similarities high; one that has a single
answer per prompt has a high `within` and few distinct texts. Pure.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from common.config import Config
from common.seeds import derive_seed
from eval.human_likeness.spread import bigrams, jaccard, self_similarity
from eval.human_likeness.text import Utterance
from eval.stats import Clustered, Estimate, JointBootstrap

PAIRS = 2_000


class ModeCollapse(Config):
    """k samples of each of `prompts` situations."""

    prompts: int
    samples: int
    """k: the most that a prompt has."""
    within: Estimate
    between: float
    distinct: float
    human_within: float | None
    """The same of people's answers, where several people answered one prompt."""


def mode_collapse(
    generated: Sequence[Utterance], human: Sequence[Utterance] = (), *, seed: int = 0
) -> ModeCollapse | None:
    """None when no prompt has two samples."""
    per: dict[str, list[Utterance]] = defaultdict(list)
    for u in generated:
        per[u.prompt].append(u)
    repeated = {name: group for name, group in per.items() if name and len(group) >= 2}
    if len(repeated) < 2:
        return None
    values = [self_similarity(group) for group in repeated.values()]
    # Prompts of one person are not independent.
    clusters = [group[0].person or group[0].conversation for group in repeated.values()]
    estimate = JointBootstrap(seed).estimate("collapse", Clustered.of(values, clusters), unit=True)
    distinct = [len({u.text for u in group}) / len(group) for group in repeated.values()]
    return ModeCollapse(
        prompts=len(repeated),
        samples=max(map(len, repeated.values())),
        within=estimate,
        between=_between(list(repeated.values()), seed),
        distinct=float(np.mean(distinct)),
        human_within=_human(human),
    )


def _between(groups: Sequence[Sequence[Utterance]], seed: int) -> float:
    rng = np.random.Generator(np.random.PCG64(derive_seed(seed, "between prompts")))
    out = []
    for _ in range(min(PAIRS, len(groups) * (len(groups) - 1))):
        i, j = rng.choice(len(groups), 2, replace=False)
        a, b = (bigrams(groups[k][int(rng.integers(len(groups[k])))].text) for k in (i, j))
        out.append(jaccard(a, b))
    return float(np.mean(out))


def _human(human: Sequence[Utterance]) -> float | None:
    seen: dict[str, int] = defaultdict(int)
    for u in human:
        seen[u.prompt] += 1
    return self_similarity(human) if any(n >= 2 for name, n in seen.items() if name) else None
