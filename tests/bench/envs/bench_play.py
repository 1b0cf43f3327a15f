"""How much `play` adds to the engine's own latency, and how much memory an episode in flight takes.

    python -m tests.bench.envs.bench_play [--episodes 512] [--latency-ms 50] [--in-flight 10000]

Ideal: 8 turns of the engine's latency, whatever the number of episodes. Both sides run in one process: a bare loop
that only waits for the engine 8 times, and full episodes with token contexts, checks and the ledger. CPU time is also
given: on a busy machine the ratio says more about its neighbours.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import tempfile
import time
from pathlib import Path

from envs.engine import Sampling
from envs.ledger import EpisodeKey, Ledger
from envs.play import episode_seed, play
from envs.players.engine import EnginePlayer
from envs.players.scripted import ScriptedPlayer
from envs.types import Episode, Row
from tests.envs.table import Dialogue, SeededEngine, byte_renderer

TURNS = 8
RENDERER = byte_renderer()


class QuickEngine(SeededEngine):
    """Answers after its latency with the same cheap tokens; keeps nothing."""

    answer = None

    async def generate(self, prompt_ids, sampling, *, seed, request_id):  # type: ignore[no-untyped-def, override]
        if self.answer is None:
            self.answer = await SeededEngine(RENDERER).generate(prompt_ids, sampling, seed=1, request_id=request_id)
        await asyncio.sleep(self.latency_s)
        return self.answer


async def bare(episodes: int, latency_s: float) -> float:
    """Seconds that the engine's latency alone takes."""

    async def one() -> None:
        for _ in range(TURNS):
            await asyncio.sleep(latency_s)

    started = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(episodes)))
    return time.perf_counter() - started


async def full(episodes: int, latency_s: float, ledger: Ledger | None) -> float:
    """Seconds that `episodes` concurrent episodes of 8 engine turns take, with the ledger."""
    player = EnginePlayer(QuickEngine(RENDERER, latency_s=latency_s), RENDERER, Sampling(max_tokens=64))
    players = {"a": player, "b": ScriptedPlayer(lambda ask: "I see. And then?")}

    async def one(sample: int) -> Episode:
        row = Row("bench", "1", "1", {})
        episode = await play(
            Dialogue(rounds=TURNS), row, players, learnable=["a"], seed=episode_seed(0, 0, row, sample)
        )
        if ledger is not None:
            ledger.put_episode(EpisodeKey("rollout", 0, row.prompt_id, sample), episode)
        return episode

    started = time.perf_counter()
    await asyncio.gather(*(one(sample) for sample in range(episodes)))
    if ledger is not None:
        ledger.flush()
    return time.perf_counter() - started


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=512)
    parser.add_argument("--latency-ms", type=float, default=50.0)
    parser.add_argument("--in-flight", type=int, default=10_000)
    options = parser.parse_args()
    latency_s = options.latency_ms / 1000
    with tempfile.TemporaryDirectory() as folder, Ledger(Path(folder)) as ledger:
        ideal = asyncio.run(bare(options.episodes, latency_s))
        cpu_s = time.process_time()
        took = asyncio.run(full(options.episodes, latency_s, ledger))
        cpu_s = time.process_time() - cpu_s
    turns = options.episodes * TURNS
    print(f"{options.episodes} episodes of {TURNS} turns at {options.latency_ms:.0f} ms")
    print(f"with play and ledger {took:.2f} s, latency alone {ideal:.2f} s: ratio {took / ideal:.2f}")
    print(f"CPU time of play and ledger: {cpu_s / turns * 1e6:.0f} µs per engine turn")
    before = peak_mib()
    asyncio.run(full(options.in_flight, 1.0, None))
    print(f"{options.in_flight} episodes in flight: {peak_mib() - before:.0f} MiB more, peak {peak_mib():.0f} MiB")


if __name__ == "__main__":
    main()
