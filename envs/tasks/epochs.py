"""Numbers over several questions of one story, where every question was played several times. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable

from envs.types import Episode


def by_epoch(episodes: Iterable[Episode]) -> list[list[Episode]]:
    """The first play of every row, the second of every row, and so on: each list asks a question at most once."""
    played: Counter[str] = Counter()
    epochs: dict[int, list[Episode]] = defaultdict(list)
    for episode in episodes:
        row = episode.row.prompt_id
        epochs[played[row]].append(episode)
        played[row] += 1
    return [epochs[k] for k in sorted(epochs)]
