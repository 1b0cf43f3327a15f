"""`osim quickstart`, shortened, killed again and again: what it leaves is what the undisturbed one leaves."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from random import Random
from typing import Any, ClassVar

from common.files import hash_file
from common.run_folder import RunFolder
from eval.results import Results
from tests.chaos import faults, training
from tests.chaos.base import Lost, Outcome, Scenario, Verdict, require_same, tail
from tests.chaos.process import Child, execute
from tests.e2e.test_quickstart import SHORT

DEADLINE_S = 1800.0
KILLS = 4
EVALUATIONS = ("before", "midtrained", "grpo", "verbal_feedback", "opd")


class Quickstart(Scenario):
    """See the module's docstring."""

    name = "quickstart"
    kinds: ClassVar = {"kill -9, four times": 1}

    def build(self) -> None:
        self.whole = self.folder / "whole"
        child = self.start(self.whole)
        if code := child.wait(DEADLINE_S):
            raise Lost(f"ended with {code}: {tail(child.text())}")
        self.seconds = time.monotonic() - child.began
        self.truth = facts(self.whole)

    def start(self, folder: Path) -> Child:
        arguments = ["quickstart", "--fast", "--out", folder, *SHORT]
        return execute(*arguments, log=folder.parent / f"{folder.name}.log")

    def inject(self, kind: str, rng: Random, folder: Path) -> Outcome:
        run = folder / "run"
        hit = []
        for _ in range(KILLS):
            child = self.start(run)
            if not faults.wait_then(child, rng.uniform(0.05, 0.35) * self.seconds):
                break
            hit.append(faults.signal_one(child, rng, signal.SIGKILL))
            child.wait(DEADLINE_S)
            child.end()
        child = self.start(run)
        if code := child.wait(DEADLINE_S):
            raise Lost(f"the resumed run ended with {code}: {tail(child.text())}")
        require_same(training.differing(facts(run), self.truth))
        return Outcome(Verdict.SAME, f"{len(hit)} kills: {', '.join(hit)}")


def facts(run: Path) -> dict[str, Any]:
    """Shards, losses, weights and scores."""
    found: dict[str, Any] = {"shard": hash_file(run / "shards" / "train.bin")}
    lines = sorted(RunFolder(run / "midtrain").read_metrics("midtrain"), key=lambda line: line["step"])
    found["losses"] = [[line["step"], line["loss"]] for line in lines]
    for name in ("midtrain", *(p.name for p in sorted(run.glob("rl-*")))):
        found[f"weights of {name}"] = training.weights(run / name)
    for name in EVALUATIONS:
        results = Results.load(run / f"eval-{name}")
        found[f"scores of {name}"] = {i.row: i.value for t in results.tasks for i in t.items}
    return found
