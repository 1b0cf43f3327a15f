"""`osim data prepare` with two workers: the shard must be the undisturbed one, byte for byte."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import ClassVar

import psutil

from common.files import hash_file, read_json
from data_tools.shards import SUFFIXES
from tests.chaos import faults
from tests.chaos.base import (
    Lost,
    Outcome,
    Scenario,
    Verdict,
    after_fault,
    refusals_of_two,
    require_refusal,
    require_same,
    resumed,
)
from tests.chaos.process import Child, execute, osim
from tests.chaos.samples import ROUTING, write_rows
from tests.megatron_osim.corpus import make_tokenizer

DEADLINE_S = 300.0
UNIT_TIMEOUT_S = 25
PREFIX = "shard"


def is_worker(process: psutil.Process) -> bool:
    """Not the tracker of semaphores that multiprocessing starts too."""
    with suppress(psutil.NoSuchProcess):
        return "--multiprocessing-fork" in process.cmdline()
    return False


class Prepare(Scenario):
    """See the module's docstring."""

    name = "prepare"
    kinds: ClassVar = {
        "kill -9, any process": 14,
        "worker stopped": 2,
        "command stopped": 2,
        "full disk": 6,
        "read-only folder": 2,
        "two at once": 3,
        "damaged unit": 8,
        "damaged plan": 3,
        "damaged shard": 10,
        "damaged manifest": 4,
        "finished before": 2,
        "clock jumps": 2,
    }
    preload = ("data_tools.prepare", "launch.progress", "data_tools.worker", "multiprocessing")

    def build(self) -> None:
        self.tokenizer = make_tokenizer(self.folder / "tokenizer")
        self.corpus = write_rows(self.folder / "corpus.jsonl", 5000)
        (self.folder / "routing.yaml").write_text(ROUTING)
        self.whole = self.folder / "whole"
        self.whole.mkdir()
        timed = self.folder / "timed"
        timed.mkdir()
        child = self.start(timed, workers=2)
        child.wait(DEADLINE_S)
        self.seconds = time.monotonic() - child.began
        child = self.start(self.whole)
        if code := child.wait(DEADLINE_S):
            raise Lost(f"the undisturbed run ended with {code}: {child.text()}")
        self.inline_s = time.monotonic() - child.began
        self.bytes = sum(p.stat().st_size for p in self.whole.glob(f"{PREFIX}.*"))

    def command(self, out: Path, workers: int = 1) -> list[object]:
        given = ["-i", self.corpus, "--tokenizer", self.tokenizer, "--output", out / PREFIX, "--workers", workers]
        more = ["--sequence-length", 512, "--routing", self.folder / "routing.yaml"]
        return ["data", "prepare", *given, *more, "unit_mb=1", "backend=hf", f"unit_timeout_s={UNIT_TIMEOUT_S}"]

    def start(self, out: Path, log: Path | None = None, workers: int = 1) -> Child:
        return osim(*self.command(out, workers), log=log or out / "log")

    def difference(self, out: Path) -> str:
        """Which file of the shard is not the undisturbed one's."""
        for suffix in SUFFIXES:
            mine, theirs = (folder / f"{PREFIX}{suffix}" for folder in (out, self.whole))
            if not mine.is_file():
                return f"{mine.name} is missing"
            if suffix == ".manifest.json":
                ours, other = read_json(mine), read_json(theirs)
                told = {"command": (), "seal": ""}  # the seal covers the command
                if {**ours, **told} != {**other, **told}:
                    return "the manifests differ"
            elif hash_file(mine) != hash_file(theirs):
                return f"{mine.name} differs"
        left = [p.name for p in out.iterdir() if p.name not in ("log", "clock") and not p.name.startswith(PREFIX)]
        work = out / f"{PREFIX}.work"
        return f"left behind: {left}" if left else ("PREFIX.work is left" if work.exists() else "")

    def inject(self, kind: str, rng: Random, folder: Path) -> Outcome:
        ways: dict[str, Callable[[Random, Path], Outcome]] = {
            "kill -9, any process": self.killed,
            "worker stopped": self.worker_stopped,
            "command stopped": self.command_stopped,
            "full disk": self.full_disk,
            "read-only folder": self.read_only,
            "two at once": self.two_at_once,
            "damaged unit": self.damaged_unit,
            "damaged plan": self.damaged_plan,
            "damaged shard": self.damaged_shard,
            "damaged manifest": self.damaged_manifest,
            "finished before": self.finished_before,
            "clock jumps": self.clock_jumps,
        }
        return ways[kind](rng, folder)

    def killed(self, rng: Random, folder: Path) -> Outcome:
        workers = rng.choice((1, 2))
        child = self.start(folder, workers=workers)
        faults.wait_then(child, rng.uniform(0, self.seconds if workers == 2 else self.inline_s))
        hit = faults.signal_one(child, rng, signal.SIGKILL)
        outcome = after_fault(
            child, lambda: self.start(folder), DEADLINE_S, lambda: self.difference(folder), killed=True
        )
        return Outcome(outcome.verdict, f"{hit}: {outcome.detail}")

    def worker_stopped(self, rng: Random, folder: Path) -> Outcome:
        """A worker that does nothing is replaced after unit_timeout_s."""
        child = self.start(folder, workers=2)
        while child.code is None and not (workers := [p for p in child.children() if is_worker(p)]):
            time.sleep(0.005)
        faults.wait_then(child, rng.uniform(0, 0.8 * self.seconds))
        for worker in rng.sample(workers, 1):
            with suppress(psutil.NoSuchProcess):
                worker.suspend()
        return after_fault(
            child, lambda: self.start(folder), DEADLINE_S, lambda: self.difference(folder), killed=False
        )

    def command_stopped(self, rng: Random, folder: Path) -> Outcome:
        """Frozen and let go again: a suspended laptop."""
        child = self.start(folder)
        faults.wait_then(child, rng.uniform(0, self.inline_s))
        child.send(signal.SIGSTOP)
        time.sleep(1.0)
        child.send(signal.SIGCONT)
        return after_fault(
            child, lambda: self.start(folder), DEADLINE_S, lambda: self.difference(folder), killed=False
        )

    def full_disk(self, rng: Random, folder: Path) -> Outcome:
        disk = folder / "disk"
        with faults.small_disk(disk, int(self.bytes * rng.uniform(0.05, 1.9)) + 8192):
            child = self.start(disk, folder / "log")
            code = child.wait(DEADLINE_S)
            said = "" if code == 0 else require_refusal(child)
            faults.resize(disk, 10 * self.bytes)
            resumed(lambda: self.start(disk, folder / "log"), DEADLINE_S, lambda: self.difference(disk))
        return Outcome(Verdict.REFUSED if code else Verdict.SAME, said)

    def read_only(self, rng: Random, folder: Path) -> Outcome:
        disk = folder / "disk"
        with faults.small_disk(disk, 10 * self.bytes):
            first = self.start(disk, folder / "log")
            faults.wait_then(first, rng.uniform(0, self.inline_s))
            faults.signal_one(first, rng, signal.SIGKILL, descendants=False)
            first.wait(DEADLINE_S)
            first.end()
            faults.set_read_only(disk, read_only=True)
            child = self.start(disk, folder / "log")
            child.wait(DEADLINE_S)
            said = require_refusal(child)
            faults.set_read_only(disk, read_only=False)
            resumed(lambda: self.start(disk, folder / "log"), DEADLINE_S, lambda: self.difference(disk))
        return Outcome(Verdict.REFUSED, said)

    def two_at_once(self, rng: Random, folder: Path) -> Outcome:
        first = self.start(folder, folder.parent / f"{folder.name}.1")
        time.sleep(rng.uniform(0, 0.3))
        second = self.start(folder, folder.parent / f"{folder.name}.2")
        said = refusals_of_two(first, second, DEADLINE_S)
        require_same(self.difference(folder))
        return Outcome(Verdict.REFUSED if said else Verdict.SAME, "; ".join(said))

    def interrupted(self, rng: Random, folder: Path) -> Path:
        """A killed run with at least one finished unit; its work folder."""
        work = folder / f"{PREFIX}.work"
        child = self.start(folder)
        while child.code is None and not list(work.glob("units/0*/record.json")):
            time.sleep(0.002)
        child.end()
        if not work.exists():
            raise Lost("ended before it could be killed")
        return work

    def damaged_unit(self, rng: Random, folder: Path) -> Outcome:
        work = self.interrupted(rng, folder)
        done = faults.damage(
            rng.choice([p for p in sorted(work.glob("units/0*/*")) if p.is_file()]), rng.choice(faults.DAMAGES), rng
        )
        return self.again(folder, done)

    def damaged_plan(self, rng: Random, folder: Path) -> Outcome:
        return self.again(
            folder, faults.damage(self.interrupted(rng, folder) / "plan.json", rng.choice(faults.DAMAGES), rng)
        )

    def again(self, folder: Path, done: str) -> Outcome:
        child = self.start(folder)
        code = child.wait(DEADLINE_S)
        if code == 0:
            require_same(self.difference(folder))
            return Outcome(Verdict.SAME, done)
        said = require_refusal(child)
        # The fix that it names: to put the work folder away, or to overwrite.
        resumed(
            lambda: osim(*self.command(folder), "overwrite=true", log=folder / "log"),
            DEADLINE_S,
            lambda: self.difference(folder),
        )
        return Outcome(Verdict.REFUSED, f"{done}: {said}")

    def damaged_shard(self, rng: Random, folder: Path) -> Outcome:
        """A finished shard with one damaged file: the same command must not take it for whole."""
        faults.copy_tree(self.whole, folder)
        suffix = rng.choice([s for s in SUFFIXES if s != ".manifest.json"])
        return self.again(folder, faults.damage(folder / f"{PREFIX}{suffix}", rng.choice(faults.DAMAGES), rng))

    def damaged_manifest(self, rng: Random, folder: Path) -> Outcome:
        faults.copy_tree(self.whole, folder)
        return self.again(folder, faults.damage(folder / f"{PREFIX}.manifest.json", rng.choice(faults.DAMAGES), rng))

    def finished_before(self, rng: Random, folder: Path) -> Outcome:
        faults.copy_tree(self.whole, folder)
        before = {p: p.stat().st_mtime_ns for p in folder.glob(f"{PREFIX}.*")}
        resumed(lambda: self.start(folder), DEADLINE_S, lambda: self.difference(folder))
        if before != {p: p.stat().st_mtime_ns for p in folder.glob(f"{PREFIX}.*")}:
            raise Lost("a finished shard was written again")
        return Outcome(Verdict.SAME)

    def clock_jumps(self, rng: Random, folder: Path) -> Outcome:
        child = execute(*self.command(folder), log=folder / "log", environment=faults.fake_clock(folder))
        faults.jumps(child, folder, rng, [rng.uniform(0.1, 0.6) for _ in range(12)])
        return after_fault(
            child, lambda: self.start(folder), DEADLINE_S, lambda: self.difference(folder), killed=False
        )
