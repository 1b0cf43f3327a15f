"""How much `play` adds to the engine's own latency, and how much memory an episode in flight takes.

    python -m tests.bench.envs.bench_play [--episodes 512] [--latency-ms 50] [--in-flight 10000]

Ideal: 8 turns of the engine's latency, whatever the number of episodes. In one run: a bare loop that only waits 8
times; full episodes with token contexts, checks and the ledger (flushed: durable) on an engine in this process that
waits as long; the same on SGLangEngine over HTTP to a server process on the same cores that answers after the same
latency, beside that engine's requests alone and the floor: the same bytes over bare sockets, nothing of the answers
read. The partner says something else each time, so that nothing is tokenized once for all. All on uvloop, as in
training and evaluation. CPU time is given too: on a busy machine the ratio says more about its neighbours.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import orjson
import uvloop

from envs.engine import Engine, Sampling
from envs.ledger import EpisodeKey, Ledger
from envs.play import episode_seed, play
from envs.players.engine import EnginePlayer
from envs.players.scripted import ScriptedPlayer
from envs.types import Episode, Row
from rl.rollout.sglang import SGLangEngine
from tests.bench.envs.latency_server import REPLY
from tests.envs.table import Dialogue, SeededEngine, byte_renderer

TURNS = 8
PROMPT_IDS, TURN_IDS = 40, 120
"""About what the episodes' prompts have at first, and more at each turn."""
RENDERER = byte_renderer(live=True)
SAMPLING = Sampling(max_tokens=64)
ROUNDS = 3
"""Repeats of each side, alternating; the median is printed."""


class QuickEngine(SeededEngine):
    """Answers after its latency with the same cheap tokens; keeps nothing."""

    answer = None

    async def generate(self, prompt_ids, sampling, *, seed, request_id):  # type: ignore[no-untyped-def, override]
        if self.answer is None:
            self.answer = await SeededEngine(RENDERER).generate(prompt_ids, sampling, seed=1, request_id=request_id)
        await asyncio.sleep(self.latency_s)
        return self.answer


async def bare(episodes: int, latency_s: float) -> None:
    """The engine's latency alone."""

    async def one() -> None:
        for _ in range(TURNS):
            await asyncio.sleep(latency_s)

    await asyncio.gather(*(one() for _ in range(episodes)))


async def requests(episodes: int, engine: SGLangEngine) -> None:
    """The engine's requests alone, with prompts as long as those of the episodes."""

    async def one(sample: int) -> None:
        for turn in range(TURNS):
            prompt = tuple(RENDERER.encode_content("x" * (PROMPT_IDS + TURN_IDS * turn)))
            await engine.generate(prompt, SAMPLING, seed=sample, request_id=f"{sample}/{turn}")

    await asyncio.gather(*(one(sample) for sample in range(episodes)))
    await engine.close()


class Socket(asyncio.Protocol):
    """The least that a request over HTTP takes: bytes out, bytes in until an answer is whole."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def ask(self, message: bytes) -> asyncio.Future[None]:
        self.answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.missing = len(REPLY)
        self.transport.write(message)  # type: ignore[attr-defined]
        return self.answer

    def data_received(self, data: bytes) -> None:
        self.missing -= len(data)
        if not self.missing:
            self.answer.set_result(None)


async def floor(episodes: int, port: int) -> None:
    """Requests of the same sizes over bare sockets."""
    bodies = [orjson.dumps({"input_ids": [88] * (PROMPT_IDS + TURN_IDS * t)}) for t in range(TURNS)]
    head = b"POST /generate HTTP/1.1\r\nContent-Length: %d\r\n\r\n"
    messages = [head % len(body) + body for body in bodies]

    async def one() -> None:
        _, socket = await asyncio.get_running_loop().create_connection(Socket, "127.0.0.1", port)
        for message in messages:
            await socket.ask(message)
        socket.transport.close()

    await asyncio.gather(*(one() for _ in range(episodes)))


async def full(episodes: int, engine: Engine, ledger: Ledger | None) -> None:
    """Concurrent episodes of 8 engine turns, recorded."""
    player = EnginePlayer(engine, RENDERER, SAMPLING)
    players = {"a": player, "b": ScriptedPlayer(lambda ask: f"I see, that makes {ask.seed % 9973}. And then?")}

    async def one(sample: int) -> Episode:
        row = Row("bench", "1", "1", {})
        episode = await play(
            Dialogue(rounds=TURNS), row, players, learnable=["a"], seed=episode_seed(0, 0, row, sample)
        )
        if ledger is not None:
            ledger.put_episode(EpisodeKey("rollout", 0, row.prompt_id, sample), episode)
        return episode

    await asyncio.gather(*(one(sample) for sample in range(episodes)))
    if ledger is not None:
        ledger.flush()
    if isinstance(engine, SGLangEngine):
        await engine.close()


def timed(make: Callable[[], Coroutine[Any, Any, None]]) -> tuple[float, float]:
    """Wall and CPU seconds."""
    started, cpu_s = time.perf_counter(), time.process_time()
    uvloop.run(make())
    return time.perf_counter() - started, time.process_time() - cpu_s


def recorded(episodes: int, engine: Engine) -> tuple[float, float]:
    with tempfile.TemporaryDirectory() as folder, Ledger(Path(folder)) as ledger:
        return timed(lambda: full(episodes, engine, ledger))


def median(values: list[tuple[float, float]]) -> tuple[float, float]:
    return sorted(values)[len(values) // 2]


def started(command: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@contextlib.contextmanager
def sglang_over_http(latency_s: float) -> Iterator[tuple[SGLangEngine, int]]:
    """The HTTP client of the product at a server that only waits, and its port."""
    command = [sys.executable, "-m", "tests.bench.envs.latency_server", str(latency_s)]
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server,
    ):
        assert server.stdout is not None
        try:
            port = int(server.stdout.readline())
            config = {"vocab_size": RENDERER.vocab_size, "max_position_embeddings": 32_768}
            (Path(folder) / "config.json").write_text(json.dumps(config))
            (Path(folder) / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
            yield SGLangEngine(f"http://127.0.0.1:{port}", Path(folder)), port
        finally:
            server.terminate()


def report(name: str, result: tuple[float, float], ideal_s: float, turns: int) -> None:
    wall_s, cpu_s = result
    print(
        f"{name}: {wall_s:.2f} s, {wall_s / ideal_s:.2f} x latency alone, {cpu_s / turns * 1e6:.0f} µs CPU per turn"
    )


def over_floor(sides: dict[str, list[tuple[float, float]]]) -> float:
    return median(sides["http"])[0] / median(sides["floor"])[0]


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=512)
    parser.add_argument("--latency-ms", type=float, default=50.0)
    parser.add_argument("--in-flight", type=int, default=10_000)
    options = parser.parse_args()
    n, latency_s = options.episodes, options.latency_ms / 1000
    turns = n * TURNS
    local = QuickEngine(RENDERER, latency_s=latency_s)
    sides: dict[str, list[tuple[float, float]]] = {
        "alone": [],
        "local": [],
        "floor": [],
        "requests": [],
        "http": [],
    }
    with sglang_over_http(latency_s) as (remote, port):
        for _ in range(ROUNDS):
            sides["alone"].append(timed(lambda: bare(n, latency_s)))
            sides["local"].append(recorded(n, local))
            sides["floor"].append(timed(lambda: floor(n, port)))
            sides["requests"].append(timed(lambda: requests(n, remote)))
            sides["http"].append(recorded(n, remote))
    ideal_s = median(sides["alone"])[0]
    print(f"{n} episodes of {TURNS} turns at {options.latency_ms:.0f} ms: latency alone {ideal_s:.2f} s")
    report("play and ledger, engine in process", median(sides["local"]), ideal_s, turns)
    report("bare sockets to a local server", median(sides["floor"]), ideal_s, turns)
    report("SGLangEngine's requests alone", median(sides["requests"]), ideal_s, turns)
    report("play and ledger, SGLangEngine over HTTP", median(sides["http"]), ideal_s, turns)
    print(f"play and ledger over HTTP against bare sockets: {over_floor(sides):.2f} x")
    before = peak_mib()
    uvloop.run(full(options.in_flight, QuickEngine(RENDERER, latency_s=1.0), None))
    print(f"{options.in_flight} episodes in flight: {peak_mib() - before:.0f} MiB more, peak {peak_mib():.0f} MiB")


if __name__ == "__main__":
    main()
