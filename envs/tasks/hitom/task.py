"""What the registry lists about Hi-ToM: generated rows of two levels, or the authors' rows from a person's copy."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from envs.registry import FeedbackPolicy, Metric, Profile, Source, TaskSpec
from envs.tasks.epochs import by_epoch
from envs.tasks.hitom.corpus import spoken_answer
from envs.tasks.hitom.env import SEAT, HitomEnv
from envs.tasks.hitom.generator import Part
from envs.tasks.hitom.levels import level
from envs.tasks.hitom.rows import generated_rows, read_item, read_rows
from envs.types import Episode, Limits, Row, Score, Seat

ROWS_WITHOUT_LIMIT = 1000
_PARTS: Mapping[str, Part] = {"train": "train", "test": "heldout"}


def spec() -> TaskSpec:
    """The task at the benchmark's sizes."""
    return _spec("hitom", max_tokens=1024)


def mini_spec() -> TaskSpec:
    """The task for very small models."""
    return _spec("hitom_mini", max_tokens=48)


def _spec(name: str, max_tokens: int) -> TaskSpec:
    return TaskSpec(
        name=name,
        axis="COG",
        version=1,
        metric=Metric("accuracy"),
        cluster="story",
        licence="generated rows: as osim; the authors' rows: Apache-2.0",
        env=_env,
        rows=lambda split, limit, seed: rows(name, split, limit, seed),
        read=read_rows if name == "hitom" else None,
        seats=(SEAT,),
        profiles=("strict", "soul"),
        feedback=FeedbackPolicy("rule", sees_gold=True),
        limits=Limits(max_turns=1, max_tokens=max_tokens),
        source=Source(
            url="https://github.com/ying-hui-he/Hi-ToM_dataset",
            commit="56dda76fbbbcd510d51e91837fe19b7df2108562",
            note="Hi-ToM_data.json: 600 questions, each under two prompting types whose labels sometimes differ",
        ),
        aggregate=joint_accuracy,
        part=lambda row: f"order {row.data['order']}",
        samples=_samples,
    )


def rows(level_name: str, split: str, limit: int | None, seed: int) -> list[Row]:
    """The first `limit` questions of a level's stories; "train" and "test" share no story."""
    count = ROWS_WITHOUT_LIMIT if limit is None else limit
    chosen = level(level_name)
    per_story = len(set(chosen.difficulty.orders))
    made = generated_rows(
        _PARTS[split], -(-count // per_story), seed, chosen.difficulty, prompt=chosen.prompt, task=level_name
    )
    return made[:count]


def joint_accuracy(episodes: Sequence[Episode]) -> dict[str, float]:
    """Share of stories whose questions up to order k are all right (He et al. 2023), over stories asked up to k.

    A story counts once per epoch.
    """
    stories: dict[tuple[str, int], dict[int, bool]] = defaultdict(dict)
    for epoch, plays in enumerate(by_epoch(episodes)):
        for episode in plays:
            if isinstance(outcome := episode.outcomes.get(SEAT), Score):
                stories[episode.row.cluster, epoch][int(episode.row.data["order"])] = outcome.value == 1.0
    joint = {}
    for k in range(5):
        asked = [story for story in stories.values() if all(order in story for order in range(k + 1))]
        if asked:
            right = sum(all(story[order] for order in range(k + 1)) for story in asked)
            joint[f"joint accuracy, orders 0 to {k}"] = right / len(asked)
    return joint


def _env(profile: Profile) -> HitomEnv:
    return HitomEnv("soul" if profile == "soul" else "strict")


def _samples(row: Row, seat: Seat) -> Sequence[str]:
    item = read_item(row)
    wrong = next(choice for choice in item.choices if choice != item.answer)
    dump = " ".join(f"<answer>{choice}</answer>" for choice in item.choices)
    return [
        spoken_answer(item),
        f"<answer>{item.letter}</answer>",
        f"<answer>{wrong}</answer>",
        dump,
        "I do not know.",
    ]
