"""What the registry lists about judging: rewardbench2 and rm_r1; and RewardBench 2's own number."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence

from envs.registry import FeedbackPolicy, Metric, Source, TaskSpec, no_rows
from envs.tasks.choice import LETTERS
from envs.tasks.epochs import by_epoch
from envs.tasks.judging.env import SEAT, JudgingEnv
from envs.tasks.judging.examples import PAIRS, RANKINGS
from envs.tasks.judging.rows import REWARDBENCH, RM_R1, Contest, rewardbench_row, rm_r1_row
from envs.tasks.schema import FromRecord, data_of, rows_of_file, rows_of_records
from envs.types import Episode, Limits, Row, Score, Seat

SUBSETS = ("Factuality", "Precise IF", "Math", "Safety", "Focus")


def rewardbench_spec() -> TaskSpec:
    """One of four, and ratings where several are right."""
    source = Source("https://github.com/allenai/reward-bench", note="RewardBench 2, in OdysSim's rows")
    return _spec(REWARDBENCH, RANKINGS, rewardbench_row, "ODC-BY 1.0", source)


def rm_r1_spec() -> TaskSpec:
    """One of two."""
    source = Source("https://github.com/RM-R1-UIUC/RM-R1", note="pairwise rows")
    return _spec(RM_R1, PAIRS, rm_r1_row, "by data set; see the source", source)


def _spec(
    name: str, records: Sequence[Mapping[str, object]], make: FromRecord, licence: str, source: Source
) -> TaskSpec:
    return TaskSpec(
        name=name,
        axis="EVAL",
        version=1,
        metric=Metric("accuracy"),
        cluster="question",
        licence=licence,
        env=lambda profile: JudgingEnv(name, profile),
        rows=no_rows(name),
        read=lambda path: rows_of_file(path, make),
        examples=lambda: rows_of_records(records, make),
        seats=(SEAT,),
        profiles=("strict", "soul"),
        feedback=FeedbackPolicy("rule", sees_gold=True),
        limits=Limits(max_turns=1, max_tokens=2048),
        splits=("test",),
        source=source,
        aggregate=rewardbench_score if name == REWARDBENCH else None,
        part=lambda row: str(row.data["subset"]) or "all",
        samples=_samples,
    )


def rewardbench_score(episodes: Sequence[Episode]) -> Mapping[str, float]:
    """RewardBench 2's number: mean of five accuracies and the ties score, over the subsets that were asked."""
    found: dict[str, list[float]] = defaultdict(list)
    for episode in episodes:
        outcome = episode.outcomes.get(SEAT)
        if isinstance(outcome, Score) and episode.row.data["subset"] in SUBSETS:
            found[episode.row.data["subset"]].append(outcome.value)
    means = {f"accuracy {name}": sum(values) / len(values) for name, values in found.items()}
    ties = ties_score(episodes)
    if ties is not None:
        means["ties"] = ties
    return {**means, "overall": sum(means.values()) / len(means)} if means else {}


def ties_score(episodes: Sequence[Episode]) -> float | None:
    """0.3 tied and 0.3 reference accuracy, 0.2 and 0.2 for margins that separate right from wrong more than the right
    ones among themselves, 0.01 tanh of the smallest such ratio minus one. Over questions with readable ratings; a
    pair's margins are compared within an epoch."""
    accuracy: dict[str, list[float]] = {"ref": [], "tied": []}
    pairs: list[tuple[float, float, float]] = []
    for plays in by_epoch(episodes):
        margins: dict[str, dict[str, tuple[float, float]]] = {"ref": {}, "tied": {}}
        for episode in plays:
            outcome, data = episode.outcomes.get(SEAT), episode.row.data
            if data["sample"] not in margins or not isinstance(outcome, Score):
                continue
            accuracy[data["sample"]].append(outcome.value)
            p = outcome.parts
            if p:
                spread, gap = p["best right"] - p["worst right"], p["worst right"] - p["best wrong"]
                margins[data["sample"]][data["pair"]] = (spread, gap)
        pairs += [(*margins["tied"][k], margins["ref"][k][1]) for k in margins["tied"] if k in margins["ref"]]
    if not accuracy["ref"] or not accuracy["tied"]:
        return None
    easy = [float(gap > spread) for spread, gap, _ in pairs]
    hard = [float(min(gap, ref) > spread) for spread, gap, ref in pairs]
    smooth = [math.tanh(min(gap, ref) / spread - 1) if spread else 0.0 for spread, gap, ref in pairs]
    return (
        0.3 * _mean(accuracy["tied"])
        + 0.3 * _mean(accuracy["ref"])
        + 0.2 * _mean(easy)
        + 0.2 * _mean(hard)
        + 0.01 * _mean(smooth)
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _samples(row: Row, seat: Seat) -> Sequence[str]:
    contest = data_of(Contest, row)
    rated = ", ".join(f"{LETTERS[i]}: {9 if i in contest.right else 3}" for i in range(len(contest.candidates)))
    every = " ".join(f"<answer>[[{letter}]]</answer>" for letter in contest.letters)
    return [f"<answer>[[{contest.letters[contest.right[0]]}]]</answer>", f"<answer>{rated}</answer>", every, "[[A]]"]
