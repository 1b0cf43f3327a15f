"""`osim data ground` against a real endpoint: every row grounded as in the undisturbed run."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from random import Random
from typing import ClassVar

from common.files import read_jsonl
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
from tests.chaos.endpoint import PASSING, Endpoint
from tests.chaos.process import Child, execute, osim
from tests.chaos.samples import ROUTING, write_rows

ROWS = 60
DEADLINE_S = 300.0


class Ground(Scenario):
    """See the module's docstring."""

    name = "ground"
    kinds: ClassVar = {
        "kill -9": 6,
        **{f"endpoint: {kind}": 1 for kind in PASSING},
        "endpoint killed": 2,
        "endpoint stopped": 1,
        "damaged cache": 6,
        "full disk": 2,
        "read-only folder": 1,
        "two at once": 3,
        "finished before": 1,
        "clock jumps": 1,
    }
    preload = ("data_tools.ground", "openai", "launch.commands.corpora", "tests.chaos.endpoint")

    def build(self) -> None:
        self.corpus = write_rows(self.folder / "corpus.jsonl", ROWS, words=8, system=False)
        self.endpoint = Endpoint(self.folder / "endpoint")
        self.endpoint.start()
        settings = {"model": "m", "base_url": self.endpoint.url, "timeout_s": 5.0, "max_failure_share": 0.0}
        text = "".join(f"{k}: {v}\n" for k, v in settings.items()) + f"sources:\n  {ROUTING}"
        (self.folder / "ground.yaml").write_text(text)
        self.whole = self.folder / "whole"
        self.whole.mkdir()
        child = self.start(self.whole)
        if code := child.wait(DEADLINE_S):
            raise Lost(f"the undisturbed run ended with {code}: {child.text()}")
        self.seconds = time.monotonic() - child.began

    def command(self, out: Path) -> list[object]:
        recipe = self.folder / "ground.yaml"
        return ["data", "ground", "-r", recipe, "-i", self.corpus, "--output", out / "rows.jsonl", "--yes"]

    def start(self, out: Path, log: Path | None = None) -> Child:
        return osim(*self.command(out), log=log or out / "log")

    def difference(self, out: Path) -> str:
        """Rows, and the temporary names that may not stay."""
        if not (out / "rows.jsonl").is_file():
            return "no output"
        mine, theirs = (list(read_jsonl(folder / "rows.jsonl")) for folder in (out, self.whole))
        if mine != theirs:
            return f"{sum(a != b for a, b in zip(mine, theirs, strict=False))} of {len(theirs)} rows differ"
        left = [p.name for p in out.glob(".rows*") if not p.name.endswith(".lock")]
        return f"left behind: {left}" if left else ""

    def inject(self, kind: str, rng: Random, folder: Path) -> Outcome:
        self.endpoint.healthy()
        if kind.startswith("endpoint: "):
            return self.lying(kind.removeprefix("endpoint: "), rng, folder)
        ways = {
            "kill -9": self.killed,
            "endpoint killed": self.endpoint_gone,
            "endpoint stopped": self.endpoint_gone,
            "damaged cache": self.damaged_cache,
            "full disk": self.bad_disk,
            "read-only folder": self.bad_disk,
            "two at once": self.two_at_once,
            "finished before": self.finished_before,
            "clock jumps": self.clock_jumps,
        }
        return ways[kind](kind, rng, folder)

    def killed(self, kind: str, rng: Random, folder: Path) -> Outcome:
        self.endpoint.fail("slow", share=0.5, seed=rng.randrange(99))
        child = self.start(folder)
        faults.wait_then(child, rng.uniform(0, self.seconds + 0.4))
        child.send(signal.SIGKILL)
        return after_fault(
            child, lambda: self.start(folder), DEADLINE_S, lambda: self.difference(folder), killed=True
        )

    def lying(self, fault: str, rng: Random, folder: Path) -> Outcome:
        self.endpoint.fail(fault, share=0.3, seed=rng.randrange(99))
        child = self.start(folder)
        outcome = self.finish(child, folder)
        return Outcome(outcome.verdict, f"{self.endpoint.injected} answers: {outcome.detail}")

    def finish(self, child: Child, folder: Path) -> Outcome:
        """Through the fault, or a refusal and then a run without it."""
        code = child.wait(DEADLINE_S)
        if code == 0:
            require_same(self.difference(folder))
            return Outcome(Verdict.SAME)
        said = require_refusal(child)
        self.endpoint.healthy()
        resumed(lambda: self.start(folder), DEADLINE_S, lambda: self.difference(folder))
        return Outcome(Verdict.REFUSED, said)

    def endpoint_gone(self, kind: str, rng: Random, folder: Path) -> Outcome:
        """For good, in the middle of the run."""
        self.endpoint.fail("slow", share=1.0)
        child = self.start(folder)
        faults.wait_then(child, rng.uniform(0.2, self.seconds))
        assert self.endpoint.child is not None
        self.endpoint.child.send(signal.SIGKILL if kind == "endpoint killed" else signal.SIGSTOP)
        try:
            code = child.wait(DEADLINE_S)
            said = "" if code == 0 else require_refusal(child)
        finally:
            self.endpoint.child.end()
            self.endpoint.start()
            self.endpoint.healthy()
        if code == 0:
            require_same(self.difference(folder))
            return Outcome(Verdict.SAME, "had all answers already")
        resumed(lambda: self.start(folder), DEADLINE_S, lambda: self.difference(folder))
        return Outcome(Verdict.REFUSED, said)

    def damaged_cache(self, kind: str, rng: Random, folder: Path) -> Outcome:
        """Answers of an interrupted run, damaged."""
        cache = folder / "rows.jsonl.cache.jsonl"
        lines = (self.whole / cache.name).read_bytes().splitlines(keepends=True)
        cache.write_bytes(b"".join(lines[: rng.randrange(10, len(lines))]))
        done = faults.damage(cache, rng.choice(faults.DAMAGES), rng)
        child = self.start(folder)
        code = child.wait(DEADLINE_S)
        if code:
            said = require_refusal(child)
            cache.rename(folder / "damaged")
            resumed(lambda: self.start(folder), DEADLINE_S, lambda: self.difference(folder))
            return Outcome(Verdict.REFUSED, f"{done}: {said}")
        require_same(self.difference(folder))
        return Outcome(Verdict.SAME, done)

    def bad_disk(self, kind: str, rng: Random, folder: Path) -> Outcome:
        disk = folder / "disk"
        size = 4096 * rng.randrange(1, 5) if kind == "full disk" else 1 << 20
        with faults.small_disk(disk, size):
            if kind == "read-only folder":
                faults.set_read_only(disk, read_only=True)
            child = self.start(disk, folder / "log")
            code = child.wait(DEADLINE_S)
            said = "" if code == 0 else require_refusal(child)
            if kind == "read-only folder":
                faults.set_read_only(disk, read_only=False)
            faults.resize(disk, 1 << 22)
            if code:
                resumed(lambda: self.start(disk, folder / "log"), DEADLINE_S, lambda: self.difference(disk))
            require_same(self.difference(disk))
        return Outcome(Verdict.REFUSED if code else Verdict.SAME, said)

    def two_at_once(self, kind: str, rng: Random, folder: Path) -> Outcome:
        self.endpoint.fail("slow", share=1.0)
        first = self.start(folder, folder.parent / f"{folder.name}.1")
        time.sleep(rng.uniform(0, 0.3))
        second = self.start(folder, folder.parent / f"{folder.name}.2")
        said = refusals_of_two(first, second, DEADLINE_S)
        require_same(self.difference(folder))
        if self.endpoint.injected > ROWS:
            raise Lost(f"{self.endpoint.injected} questions for {ROWS} rows: asked and paid twice")
        return Outcome(Verdict.REFUSED if said else Verdict.SAME, "; ".join(said))

    def finished_before(self, kind: str, rng: Random, folder: Path) -> Outcome:
        faults.copy_tree(self.whole, folder)
        before = (folder / "rows.jsonl").stat().st_mtime_ns
        child = self.start(folder)
        child.wait(DEADLINE_S)
        said = require_refusal(child)
        require_same(self.difference(folder))
        if (folder / "rows.jsonl").stat().st_mtime_ns != before:
            raise Lost("a finished output was written again")
        return Outcome(Verdict.REFUSED, said)

    def clock_jumps(self, kind: str, rng: Random, folder: Path) -> Outcome:
        self.endpoint.fail("429", share=0.3, seed=rng.randrange(99))
        child = execute(*self.command(folder), log=folder / "log", environment=faults.fake_clock(folder))
        faults.jumps(child, folder, rng, [rng.uniform(0.2, 0.5) for _ in range(20)])
        return self.finish(child, folder)
