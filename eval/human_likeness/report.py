"""All human-likeness measures of one set of generated turns against human turns.

A distance means nothing by itself: two samples of people differ too. Each measure is therefore given with its floor,
the distance between two halves of the human conversations (median over seeded splits), and as excess =
(distance − floor) / floor. Conversations, not turns, are split and resampled.

Pure and seeded; numpy only, except the classifier (scikit-learn, extra `eval`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np

from common.config import Config
from common.errors import UsageError
from common.seeds import derive_seed
from eval.human_likeness import classifier, spread, style
from eval.human_likeness import words as word_choice
from eval.human_likeness.text import Utterance
from eval.stats import Estimate

MIN_CONVERSATIONS = 8
_SPLITS = 20
_DRAWS = 100

Distance = Callable[[Sequence[Utterance], Sequence[Utterance]], float]


class Measure(Config):
    """One distance (0: alike)."""

    name: str
    group: str
    unit: str
    distance: Estimate
    """Generated against human; the interval resamples conversations of both sides."""
    floor: float
    """Human against human, median over splits."""
    floor_high: float
    """Its 95th percentile: a distance below it is within what people differ by."""
    generated: float | None = None
    human: float | None = None
    """Plain values of both sides, where the measure is about one number."""

    @property
    def excess(self) -> float | None:
        return (self.distance.value - self.floor) / self.floor if self.floor > 0 else None

    @property
    def within_floor(self) -> bool:
        return self.distance.value <= self.floor_high


class WordShift(Config):
    """A word that one side uses more (log-odds with an informative Dirichlet prior)."""

    word: str
    z: float
    """Positive: generated text uses it more."""
    generated_per_1k: float
    human_per_1k: float


class HumanLikenessResult(Config):
    """What was measured on how much text."""

    name: str
    generated_turns: int
    human_turns: int
    conversations: int
    measures: tuple[Measure, ...]
    word_shifts: tuple[WordShift, ...]
    notes: tuple[str, ...] = ()


def human_likeness(
    generated: Sequence[Utterance],
    human: Sequence[Utterance],
    *,
    name: str,
    seed: int = 0,
    with_classifier: bool = True,
    shifts: int = 20,
) -> HumanLikenessResult:
    """Compare generated with human turns. Raises UsageError on too little text.

    Both sides should come from the same tasks and turn positions: the measures do not know about topic.
    """
    for side, utterances in (("generated", generated), ("human", human)):
        found = len({u.conversation for u in utterances})
        if found < MIN_CONVERSATIONS:
            raise UsageError(
                f"{found} {side} conversations are too few", where=name, fix=f"give at least {MIN_CONVERSATIONS}"
            )
    bench = _Bench(list(generated), list(human), seed)
    measures = [
        bench.measure(spec.name, spec.group, spec.unit, spec.distance, spec.value)
        for spec in (*style.MEASURES, *word_choice.MEASURES, *spread.measures(generated, human))
    ]
    notes = []
    if with_classifier:
        measures += [bench.classified(feature) for feature in classifier.FEATURES]
    else:
        notes.append("The two-sample classifier was not run.")
    table = word_choice.log_odds(generated, human)
    chosen = sorted(table, key=lambda row: -abs(row[1]))[:shifts]
    return HumanLikenessResult(
        name=name,
        generated_turns=len(generated),
        human_turns=len(human),
        conversations=len({u.conversation for u in generated}),
        measures=tuple(measures),
        word_shifts=tuple(WordShift(word=w, z=z, generated_per_1k=g, human_per_1k=h) for w, z, g, h in chosen),
        notes=tuple(notes),
    )


class _Bench:
    """Splits and resamples by conversation."""

    def __init__(self, generated: list[Utterance], human: list[Utterance], seed: int) -> None:
        self.generated, self.human, self.seed = generated, human, seed
        self.by_generated, self.by_human = _grouped(generated), _grouped(human)

    def measure(
        self,
        name: str,
        group: str,
        unit: str,
        distance: Distance,
        value: Callable[[Sequence[Utterance]], float] | None,
    ) -> Measure:
        rng = self._rng(name)
        draws = [
            distance(_resample(self.by_generated, rng), _resample(self.by_human, rng)) for _ in range(self._draws())
        ]
        observed = distance(self.generated, self.human)
        floor = self._floor(distance, rng)
        low, high = np.nanquantile(draws, [0.025, 0.975])
        return Measure(
            name=name,
            group=group,
            unit=unit,
            distance=self._estimate(observed, float(low), float(high)),
            floor=float(np.nanmedian(floor)),
            floor_high=float(np.nanquantile(floor, 0.95)),
            generated=value(self.generated) if value else None,
            human=value(self.human) if value else None,
        )

    def classified(self, feature: classifier.Feature) -> Measure:
        seed = derive_seed(self.seed, "classifier", feature.name)
        observed, low, high = classifier.auroc(self.generated, self.human, feature, seed)
        floor = [
            classifier.auroc(left, right, feature, derive_seed(seed, "floor", k))[0]
            for k, (left, right) in enumerate(self._halves(self._rng(feature.name), 4))
        ]
        return Measure(
            name=f"classifier AUROC, {feature.name}",
            group="two-sample classifier",
            unit="AUROC (0.5: cannot tell)",
            distance=self._estimate(observed, low, high),
            floor=float(np.median(floor)),
            floor_high=float(np.max(floor)),
        )

    def _floor(self, distance: Distance, rng: np.random.Generator) -> list[float]:
        return [distance(left, right) for left, right in self._halves(rng, _SPLITS)]

    def _halves(self, rng: np.random.Generator, count: int) -> list[tuple[list[Utterance], list[Utterance]]]:
        keys = sorted(self.by_human)
        out = []
        for _ in range(count):
            order = rng.permutation(len(keys))
            left = {keys[i] for i in order[: len(keys) // 2]}
            out.append(
                (
                    [u for u in self.human if u.conversation in left],
                    [u for u in self.human if u.conversation not in left],
                )
            )
        return out

    def _estimate(self, value: float, low: float, high: float) -> Estimate:
        n = len(self.generated) + len(self.human)
        return Estimate(value, min(low, value), max(high, value), n, len(self.by_generated) + len(self.by_human))

    def _draws(self) -> int:
        return _DRAWS if len(self.generated) + len(self.human) < 4_000 else _DRAWS // 4

    def _rng(self, name: str) -> np.random.Generator:
        return np.random.Generator(np.random.PCG64(derive_seed(self.seed, "human-likeness", name)))


def _grouped(utterances: Sequence[Utterance]) -> dict[str, list[Utterance]]:
    grouped: dict[str, list[Utterance]] = defaultdict(list)
    for u in utterances:
        grouped[u.conversation].append(u)
    return dict(grouped)


def _resample(grouped: dict[str, list[Utterance]], rng: np.random.Generator) -> list[Utterance]:
    keys = sorted(grouped)
    return [u for i in rng.integers(0, len(keys), len(keys)) for u in grouped[keys[i]]]
