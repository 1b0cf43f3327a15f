"""One step off-policy against synchronous: the same loop, alternating in one process, SIMULATED times.

Generation and training each last SECONDS in every step (sleeps around the real calls on a tiny model), which is the
case that gains most: at best 2x. Target: at least 1.3x (issue 7). It measures the loop's overlap, not a machine.

    python -m tests.bench.rl.bench_rl_async [SECONDS]
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rl.actor.actor import Actor
from rl.collect import Collector
from tests.bench.rl.setup import config, one_rank, train, write_model

ROUNDS = 2
LETTERS = {"task": "tests.rl.letters:spec", "algorithm": {"name": "grpo", "variant": "rae"}}


def lengthen(seconds: float) -> None:
    """Make playing a step and training on it last at least `seconds` each."""
    play, update = Collector.play, Actor.update

    async def slow_play(self: Collector, *arguments: Any) -> Any:
        found, _ = await asyncio.gather(play(self, *arguments), asyncio.sleep(seconds))
        return found

    def slow_update(self: Actor, *arguments: Any, **named: Any) -> Any:
        started = time.monotonic()
        found = update(self, *arguments, **named)
        time.sleep(max(0.0, seconds - (time.monotonic() - started)))
        return found

    Collector.play, Actor.update = slow_play, slow_update  # type: ignore[method-assign,assignment]


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 3.0
    lengthen(seconds)
    took: dict[int, list[float]] = {0: [], 1: []}
    with tempfile.TemporaryDirectory() as name, one_rank(Path(name)) as ranks:
        folder = Path(name)
        model = write_model(folder / "model", hidden=64, layers=2)
        for round_ in range(ROUNDS):
            for staleness in (0, 1):
                settings = config(
                    model, tasks=[LETTERS], groups_per_step=2, samples_per_prompt=2, max_staleness=staleness
                )
                lines = train(settings, folder / f"run-{round_}-{staleness}", ranks)[1:-1]
                took[staleness].append(statistics.mean(line["seconds/step"] for line in lines))
    for staleness, label in ((0, "synchronous"), (1, "one step off-policy")):
        print(
            f"{label:20} {statistics.median(took[staleness]):.2f} s a step (simulated: {seconds:g} s + {seconds:g} s)"
        )
    print(f"speed-up {statistics.median(took[0]) / statistics.median(took[1]):.2f}x (target 1.3x, at most 2x)")


if __name__ == "__main__":
    main()
