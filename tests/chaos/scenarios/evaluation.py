"""`osim eval run` of an API model with a judge: the same score for every row, every episode once in the ledger."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from random import Random
from typing import Any, ClassVar

from envs.ledger import LEDGER_FILE, LedgerReader
from eval.results import RESULTS_FILE, Results
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
from tests.eval.toy_tasks import JUDGED, VOWELS

DEADLINE_S = 300.0
ATTEMPT_S = 4


class Evaluation(Scenario):
    """See the module's docstring."""

    name = "evaluation"
    kinds: ClassVar = {
        "kill -9": 10,
        "command stopped": 1,
        **{f"endpoint: {kind}": 2 for kind in PASSING},
        "endpoint lies for ever": 4,
        "endpoint refuses the key": 1,
        "endpoint killed": 3,
        "endpoint stopped": 2,
        "damaged ledger": 8,
        "damaged replies": 8,
        "damaged results": 3,
        "full disk": 4,
        "read-only folder": 2,
        "two at once": 3,
        "two at once, different": 3,
        "finished before": 1,
        "clock jumps": 3,
    }
    preload = (
        "launch.commands.evaluation",
        "launch.evaluation",
        "openai",
        "tests.eval.toy_tasks",
        "eval.progress",
        "tests.chaos.endpoint",
        "envs.client.transport",
    )

    def build(self) -> None:
        self.endpoint = Endpoint(self.folder / "endpoint")
        self.endpoint.start()
        self.whole = self.folder / "whole"
        child = self.start(self.whole, self.folder / "log")
        if code := child.wait(DEADLINE_S):
            raise Lost(f"the undisturbed run ended with {code}: {child.text()}")
        self.seconds = time.monotonic() - child.began
        self.truth = facts(self.whole)

    def command(self, out: Path, suite: str = JUDGED) -> list[object]:
        at = {"model": "tiny", "base_url": self.endpoint.url, "attempt_timeout_s": ATTEMPT_S, "deadline_s": 60}
        judge = {**at, "model": "judge"}
        given = ["eval", "run", "--suite", suite, "--out", out, "baseline_rows=0"]
        return [*given, f"model.endpoint={json.dumps(at)}", f"client.judge={json.dumps(judge)}"]

    def start(self, out: Path, log: Path | None = None, suite: str = JUDGED) -> Child:
        return osim(*self.command(out, suite), log=log or out.parent / "log")

    def difference(self, out: Path) -> str:
        """Scores, texts, and the number of episodes under each key."""
        found = facts(out)
        return "" if found == self.truth else f"differs in {[k for k in self.truth if found.get(k) != self.truth[k]]}"

    def inject(self, kind: str, rng: Random, folder: Path) -> Outcome:
        self.endpoint.healthy()
        run = folder / "run"
        if kind.startswith("endpoint: "):
            self.endpoint.fail(kind.removeprefix("endpoint: "), share=0.4, seed=rng.randrange(99))
            return self.finish(self.start(run), run)
        if kind.startswith("damaged"):
            return self.damaged(kind, rng, run)
        ways = {
            "kill -9": self.killed,
            "command stopped": self.stopped,
            "endpoint lies for ever": self.lies,
            "endpoint refuses the key": self.lies,
            "endpoint killed": self.endpoint_gone,
            "endpoint stopped": self.endpoint_gone,
            "full disk": self.bad_disk,
            "read-only folder": self.bad_disk,
            "two at once": self.two_at_once,
            "two at once, different": self.two_at_once,
            "finished before": self.finished_before,
            "clock jumps": self.clock_jumps,
        }
        return ways[kind](kind, rng, run)

    def finish(self, child: Child, run: Path) -> Outcome:
        """Through the fault, or a refusal and then a run without it."""
        code = child.wait(DEADLINE_S)
        met = f"{self.endpoint.injected} answers"
        if code == 0:
            require_same(self.difference(run))
            return Outcome(Verdict.SAME, met)
        said = require_refusal(child)
        self.endpoint.healthy()
        resumed(lambda: self.start(run), DEADLINE_S, lambda: self.difference(run))
        return Outcome(Verdict.REFUSED, f"{met}: {said}")

    def killed(self, kind: str, rng: Random, run: Path) -> Outcome:
        self.endpoint.fail("slow", share=0.7, seed=rng.randrange(99))
        child = self.start(run)
        faults.wait_then(child, rng.uniform(0.1, self.seconds + 0.8))
        child.send(signal.SIGKILL)
        return after_fault(child, lambda: self.start(run), DEADLINE_S, lambda: self.difference(run), killed=True)

    def stopped(self, kind: str, rng: Random, run: Path) -> Outcome:
        child = self.start(run)
        faults.wait_then(child, rng.uniform(0.2, self.seconds))
        child.send(signal.SIGSTOP)
        time.sleep(2 * ATTEMPT_S)
        child.send(signal.SIGCONT)
        return self.finish(child, run)

    def lies(self, kind: str, rng: Random, run: Path) -> Outcome:
        """What does not pass is a failure that is told, never a score."""
        lies = ("prose", "wrong schema", "no choices", "broken JSON")
        fault = "401" if kind.endswith("key") else rng.choice(lies)
        self.endpoint.fail(fault, share=0.5, seed=rng.randrange(99), for_ever=True)
        outcome = self.finish(self.start(run), run)
        if outcome.verdict is Verdict.SAME and self.endpoint.injected:
            raise Lost(f"{fault}: a lie for ever gave the undisturbed result")
        return outcome

    def endpoint_gone(self, kind: str, rng: Random, run: Path) -> Outcome:
        self.endpoint.fail("slow")
        child = self.start(run)
        faults.wait_then(child, rng.uniform(0.3, self.seconds + 0.5))
        assert self.endpoint.child is not None
        self.endpoint.child.send(signal.SIGKILL if kind == "endpoint killed" else signal.SIGSTOP)
        try:
            code = child.wait(DEADLINE_S)
        finally:
            self.endpoint.child.end()
            self.endpoint.start()
            self.endpoint.healthy()
        if code == 0:
            require_same(self.difference(run))
            return Outcome(Verdict.SAME, "had all answers already")
        return self.finish(child, run)

    def damaged(self, kind: str, rng: Random, run: Path) -> Outcome:
        """Of an interrupted run, or of a finished one."""
        self.endpoint.fail("slow", share=0.7, seed=rng.randrange(99))
        child = self.start(run)
        if kind == "damaged results" or rng.random() < 0.4:
            child.wait(DEADLINE_S)
        else:
            faults.wait_then(child, rng.uniform(0.3, self.seconds + 0.5))
            child.send(signal.SIGKILL)
            child.wait(DEADLINE_S)
        patterns = {"damaged ledger": f"ledger/{LEDGER_FILE}*", "damaged replies": "replies.sqlite*"}
        found = sorted(p for p in run.glob(patterns.get(kind, RESULTS_FILE)) if p.stat().st_size)
        if not found:
            return after_fault(child, lambda: self.start(run), DEADLINE_S, lambda: self.difference(run), killed=True)
        path = rng.choice(found)
        done = faults.damage(path, rng.choice(faults.DAMAGES), rng)
        again = self.start(run)
        if again.wait(DEADLINE_S) == 0:
            require_same(self.difference(run))
            return Outcome(Verdict.SAME, done)
        said = require_refusal(again)
        # The fix that it names: the damaged files are moved away.
        for one in found:
            if one.exists():
                one.rename(run.parent / f"damaged-{one.name}")
        resumed(lambda: self.start(run), DEADLINE_S, lambda: self.difference(run))
        return Outcome(Verdict.REFUSED, f"{done}: {said}")

    def bad_disk(self, kind: str, rng: Random, run: Path) -> Outcome:
        size = 4096 * rng.randrange(4, 60) if kind == "full disk" else 8 << 20
        with faults.small_disk(run, size):
            if kind == "read-only folder":
                if rng.random() < 0.5:
                    first = self.start(run)
                    faults.wait_then(first, rng.uniform(0.3, self.seconds))
                    first.send(signal.SIGKILL)
                    first.wait(DEADLINE_S)
                faults.set_read_only(run, read_only=True)
            child = self.start(run)
            code = child.wait(DEADLINE_S)
            said = "" if code == 0 else require_refusal(child)
            if kind == "read-only folder":
                faults.set_read_only(run, read_only=False)
            faults.resize(run, 32 << 20)
            resumed(lambda: self.start(run), DEADLINE_S, lambda: self.difference(run))
        return Outcome(Verdict.REFUSED if code else Verdict.SAME, said)

    def two_at_once(self, kind: str, rng: Random, run: Path) -> Outcome:
        """Of the same evaluation, or of another one into the same folder a moment later."""
        self.endpoint.fail("slow", share=1.0)
        first = self.start(run, run.parent / "log.1")
        if kind.endswith("different"):
            while first.code is None and not (run / "config.yaml").exists():
                time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.3))
        second = self.start(run, run.parent / "log.2", VOWELS if kind.endswith("different") else JUDGED)
        said = refusals_of_two(first, second, DEADLINE_S)
        resumed(lambda: self.start(run), DEADLINE_S, lambda: self.difference(run))
        return Outcome(Verdict.REFUSED if said else Verdict.SAME, "; ".join(said))

    def finished_before(self, kind: str, rng: Random, run: Path) -> Outcome:
        faults.copy_tree(self.whole, run)
        self.endpoint.fail("500")  # nobody asks
        child = self.start(run)
        if code := child.wait(DEADLINE_S):
            raise Lost(f"ended with {code}: {child.text()}")
        require_same(self.difference(run))
        return Outcome(Verdict.SAME, f"asked {self.endpoint.injected} times")

    def clock_jumps(self, kind: str, rng: Random, run: Path) -> Outcome:
        self.endpoint.fail("429", share=0.5, seed=rng.randrange(99))
        clock = faults.fake_clock(run.parent)
        child = execute(*self.command(run), log=run.parent / "log", environment=clock)
        faults.jumps(child, run.parent, rng, [rng.uniform(0.2, 0.5) for _ in range(20)])
        return self.finish(child, run)


def facts(run: Path) -> dict[str, Any]:
    """What must not depend on disturbances: scores, texts, how often each episode was scored."""
    results = Results.load(run)
    with LedgerReader(run / "ledger") as ledger:
        recorded = list(ledger.episodes())
        ledger.verify()
    scored = [r for r in recorded if all(hasattr(o, "value") for o in r.episode.outcomes.values())]
    return {
        "scores": {i.row: i.value for t in results.tasks for i in t.items},
        "estimates": [t.estimate.value if t.estimate else None for t in results.tasks],
        "coverage": results.coverage,
        "says": {r.episode.row.id: [s.text for s in r.episode.says] for r in scored},
        "scored once": sorted(r.episode.row.id for r in scored),
    }
