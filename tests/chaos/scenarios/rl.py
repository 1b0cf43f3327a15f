"""RL with the embedded engine, killed and damaged: weights, metrics and ledger of the resumed run are the same."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from random import Random
from typing import ClassVar

from common.files import repair_jsonl_tail
from common.run_folder import RunFolder
from envs.ledger import LEDGER_FILE
from tests.chaos import faults, training
from tests.chaos.base import Lost, Outcome, Scenario, Verdict, require_refusal, require_same, tail
from tests.chaos.process import call
from tests.rl import runs

MODULE = "rl.worker"
DEADLINE_S = 300.0
STEPS = 4


class RL(Scenario):
    """See the module's docstring."""

    name = "rl"
    kinds: ClassVar = {
        "kill -9": 4,
        "kill -9, played ahead": 2,
        "kill after kill": 2,
        "damaged ledger": 3,
        "stopped": 1,
    }
    preload = (*training.PRELOAD, "rl.worker", "rl.loop", "rl.rollout.embedded", "transformers", "tests.rl.letters")

    def build(self) -> None:
        made = call(make_model, str(self.folder / "model"), log=self.folder / "log")
        if made.wait(DEADLINE_S):
            raise Lost(made.text())
        self.configs = {
            stale: runs.config(
                self.folder / "model",
                {"name": "verbal_feedback"},
                steps=STEPS,
                max_staleness=stale,
                checkpoint={"every_steps": 1},
                timeout_s=60.0,
            )
            for stale in (0, 1)
        }
        self.truth, self.seconds = {}, {}
        for stale in (0, 1):
            began = time.monotonic()
            run = self.new(self.folder / f"whole-{stale}", stale)
            self.finish(run)
            self.seconds[stale] = time.monotonic() - began
            self.truth[stale] = facts(run)

    def new(self, run: Path, stale: int) -> Path:
        RunFolder.prepare(run, self.configs[stale])
        return run

    def finish(self, run: Path) -> None:
        repair_jsonl_tail(run / "metrics.jsonl")  # what RunFolder.lock does in the command
        [child] = training.start(MODULE, run)
        if code := child.wait(DEADLINE_S):
            raise Lost(f"ended with {code}:\n{tail(child.text())}")

    def resumed(self, run: Path, stale: int) -> None:
        self.finish(run)
        require_same(training.differing(facts(run), self.truth[stale]))

    def kill(self, run: Path, rng: Random, stale: int, low: float = 0.2) -> None:
        [child] = training.start(MODULE, run)
        faults.wait_then(child, rng.uniform(low, 1.0) * self.seconds[stale])
        child.end()

    def inject(self, kind: str, rng: Random, folder: Path) -> Outcome:
        stale = int(kind.endswith("ahead"))
        run = self.new(folder / "run", stale)
        if kind == "stopped":
            [child] = training.start(MODULE, run)
            faults.wait_then(child, rng.uniform(0.3, 0.8) * self.seconds[0])
            child.send(signal.SIGSTOP)
            time.sleep(3)
            child.send(signal.SIGCONT)
            if code := child.wait(DEADLINE_S):
                raise Lost(f"ended with {code}: {tail(child.text())}")
            require_same(training.differing(facts(run), self.truth[0]))
            return Outcome(Verdict.SAME, "went on")
        for _ in range(2 if kind == "kill after kill" else 1):
            self.kill(run, rng, stale, low=0.5 if kind == "damaged ledger" else 0.2)
        if kind == "damaged ledger":
            return self.damaged(run, rng, folder)
        steps = len(list((run / "checkpoints").glob("step-*")))
        self.resumed(run, stale)
        return Outcome(Verdict.SAME, f"after {steps} checkpoints")

    def damaged(self, run: Path, rng: Random, folder: Path) -> Outcome:
        found = sorted((run / "ledger").glob(f"{LEDGER_FILE}*"))
        if not found:
            self.resumed(run, 0)
            return Outcome(Verdict.SAME, "killed before the ledger was there")
        copy = folder / "copy"
        faults.copy_tree(run, copy)
        done = faults.damage(rng.choice(found), rng.choice(faults.DAMAGES), rng)
        [child] = training.start(MODULE, run)
        if child.wait(DEADLINE_S) == 0:
            require_same(training.differing(facts(run), self.truth[0]))
            return Outcome(Verdict.SAME, done)
        said = require_refusal(child)
        self.resumed(copy, 0)  # the fix that it names: a copy is restored
        return Outcome(Verdict.REFUSED, f"{done}: {said}")


def make_model(path: str) -> None:
    """In a process of its own: the runner imports no torch."""
    from tests.rl.rollout.conftest import write_checkpoint

    write_checkpoint(Path(path), seed=3)


def facts(run: Path) -> dict[str, object]:
    """What must not depend on disturbances."""
    return {"metrics": runs.metrics(run), "weights": training.weights(run), "ledger": runs.ledger(run)}
