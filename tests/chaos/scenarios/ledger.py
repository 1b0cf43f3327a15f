"""The ledger's writer, killed at any moment, and its files, damaged anywhere.

What can be read is exactly what was written, in order, or the reader refuses. Then everything is put again, as a
resumed run does: each episode is there once.
"""

from __future__ import annotations

import asyncio
import shutil
import signal
import time
from pathlib import Path
from random import Random
from typing import ClassVar

from common.errors import DataError
from envs.engine import Sampling
from envs.ledger import LEDGER_FILE, EpisodeKey, Ledger, LedgerReader
from envs.play import episode_seed, play
from envs.players.engine import EnginePlayer
from envs.types import Episode
from tests.chaos import faults
from tests.chaos.base import Lost, Outcome, Scenario, Verdict
from tests.chaos.process import call
from tests.envs.table import Dialogue, SeededEngine, byte_renderer, row

STEPS, PROMPTS, SAMPLES = 6, 5, 4
DEADLINE_S = 120.0


def keys() -> list[EpisodeKey]:
    """In the order in which they are put."""
    return [
        EpisodeKey("rollout", step, f"p{prompt}", sample)
        for step in range(STEPS)
        for prompt in range(PROMPTS)
        for sample in range(SAMPLES)
    ]


def played(key: EpisodeKey) -> Episode:
    """A real episode that depends on its key alone."""
    renderer = byte_renderer()
    player = EnginePlayer(SeededEngine(renderer), renderer, Sampling(max_tokens=12))
    seed = episode_seed(0, key.step, row(key.prompt_id), key.sample)
    episode = asyncio.run(
        play(Dialogue(), row(key.prompt_id), {"a": player, "b": player}, seed=seed, learnable=["a"])
    )
    return Episode(**{**vars(episode), "wall_s": 0.0})


def fill(folder: str) -> None:
    """What a run does: put, flush now and then."""
    with Ledger(Path(folder)) as ledger:
        for i, key in enumerate(keys()):
            ledger.put_episode(key, played(key))
            if i % 7 == 0:
                ledger.flush()


class LedgerFiles(Scenario):
    """See the module's docstring."""

    name = "ledger"
    kinds: ClassVar = {
        "kill -9 of the writer": 12,
        "torn log": 10,
        "damaged file": 20,
        "damaged after a kill": 10,
        "full disk": 4,
    }
    preload = ("tests.envs.table", "envs.ledger", "envs.play", "tests.chaos.scenarios.ledger")

    def build(self) -> None:
        self.truth = {key: played(key) for key in keys()}
        self.whole = self.folder / "whole"
        fill(str(self.whole))
        child = call(fill, str(self.folder / "timed"), log=self.folder / "log")
        child.wait(DEADLINE_S)
        self.seconds = time.monotonic() - child.began
        self.bytes = (self.whole / LEDGER_FILE).stat().st_size

    def inject(self, kind: str, rng: Random, folder: Path) -> Outcome:
        target = folder / "ledger"
        if kind == "full disk":
            return self.full_disk(rng, folder)
        if kind == "damaged file":
            shutil.copytree(self.whole, target)
            done = faults.damage(target / LEDGER_FILE, rng.choice(faults.DAMAGES), rng)
            return self.judge(target, done, folder)
        child = call(fill, str(target), log=folder / "log")
        faults.wait_then(child, rng.uniform(0.02, self.seconds))
        child.send(signal.SIGKILL)
        child.wait(DEADLINE_S)
        done = "killed"
        if kind != "kill -9 of the writer" and (files := sorted(target.glob(f"{LEDGER_FILE}*"))):
            log = [p for p in files if p.name.endswith("-wal")]
            torn = kind == "torn log" and log
            path = log[0] if torn else rng.choice(files)
            # A torn log is what a power cut leaves: short, or with a tail of anything.
            ways = ("truncated", "garbage tail", "zeroed part") if torn else faults.DAMAGES
            done = faults.damage(path, rng.choice(ways), rng)
        return self.judge(target, done, folder)

    def judge(self, target: Path, done: str, folder: Path) -> Outcome:
        """Read what is there, put everything again, read all."""
        try:
            if (target / LEDGER_FILE).is_file():
                with Ledger(target) as ledger:
                    found = {r.key: r.episode for r in ledger.episodes()}
                    if any(self.truth.get(key) != episode for key, episode in found.items()):
                        raise Lost(f"{done}: an episode came back changed")
                    if list(found) != sorted(found) or set(found) - set(self.truth):
                        raise Lost(f"{done}: episodes that nobody put")
        except DataError as e:
            refused = str(e)
            if not e.fix:
                raise Lost(f"{done}: no fix in {refused}") from e
            # The fix that it names: the damaged ledger is moved away, and the run goes on.
            target.rename(target.with_name("damaged"))
        else:
            refused = ""
        again = call(fill, str(target), log=folder / "log")
        if code := again.wait(DEADLINE_S):
            text = again.text()
            if not refused and code == 2 and "fix:" in text and "Traceback" not in text:
                return Outcome(Verdict.REFUSED, f"{done}: {text}")
            raise Lost(f"{done}: putting again ended with {code}: {text}")
        with LedgerReader(target) as reader:
            if {r.key: r.episode for r in reader.episodes()} != self.truth:
                raise Lost(f"{done}: not the undisturbed ledger")
            reader.verify()
        return Outcome(Verdict.REFUSED if refused else Verdict.SAME, f"{done}: {refused}")

    def full_disk(self, rng: Random, folder: Path) -> Outcome:
        disk = folder / "disk"
        with faults.small_disk(disk, int(self.bytes * rng.uniform(0.1, 2.0)) + 65536):
            child = call(fill, str(disk / "ledger"), log=folder / "log")
            code = child.wait(DEADLINE_S)
            said = child.text()
            if code and not (code == 2 and "fix:" in said and "Traceback" not in said):
                raise Lost(f"ended with {code}: {said}")
            faults.resize(disk, 20 * self.bytes)
            outcome = self.judge(disk / "ledger", f"full disk ({said.strip()[:100]})", folder)
        return Outcome(Verdict.REFUSED if code else outcome.verdict, outcome.detail)
