"""Damaged checkpoints: the run refuses one that is not what was written, and goes on from the one before it."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import ClassVar

from tests.chaos import faults, training
from tests.chaos.base import Lost, Outcome, Verdict, require_refusal, require_same, tail
from tests.chaos.scenarios.midtrain import DEADLINE_S, EVERY, MODULE, Midtrain

KINDS = ("weights and optimizer", "index", "state", "common", "any file")


class Checkpoints(Midtrain):
    """Of a run that was stopped after its second checkpoint."""

    name = "checkpoints"
    kinds: ClassVar = {"weights and optimizer": 8, "index": 3, "state": 4, "common": 3, "any file": 3}
    steps: ClassVar[int] = 3 * EVERY

    def needs_ranks(self) -> tuple[int, ...]:
        return (1,)

    def build(self) -> None:
        super().build()
        # As left by a kill between the second checkpoint and the third.
        self.stopped = self.folder / "stopped"
        faults.copy_tree(self.folder / "whole-1", self.stopped)
        faults.remove(self.stopped / "checkpoints" / f"step-{self.steps:08d}")
        faults.remove(self.stopped / "hf")

    def inject(self, kind: str, rng: Random, folder: Path) -> Outcome:
        run = folder / "run"
        faults.copy_tree(self.stopped, run)
        newest = run / "checkpoints" / f"step-{2 * EVERY:08d}"
        patterns = {"weights and optimizer": "*.distcp", "index": ".metadata", "state": "state.json"}
        patterns |= {"common": "common.pt", "any file": "*"}
        path = rng.choice(sorted(p for p in newest.glob(patterns[kind]) if p.is_file()))
        done = faults.damage(path, rng.choice(faults.DAMAGES), rng)
        [child] = training.start(MODULE, run)
        code = child.wait(DEADLINE_S)
        if code == 0:
            require_same(training.differing(training.midtrain_facts(run), self.truth[1]))
            return Outcome(Verdict.SAME, f"{done}: not taken for whole")
        said = require_refusal(child)
        if str(newest) not in said:
            raise Lost(f"{done}: the error does not name the checkpoint: {tail(said)}")
        newest.rename(folder / "damaged")  # the fix that it names
        self.resumed(run, 1)
        return Outcome(Verdict.REFUSED, f"{done}: {said}")
