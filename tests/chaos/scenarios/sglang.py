"""RL with a real SGLang server that is killed or frozen, or whose trainer is killed.

A sampling server is not reproducible: so what must hold is that the run ends, that every rollout of every step is in
the ledger once and was trained on once, that rollouts which were finished before a kill are kept, and that no server
outlives its run.
"""

from __future__ import annotations

import signal
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import ClassVar

import psutil

from common.run_folder import RunFolder
from envs.ledger import LEDGER_FILE, LedgerNotStarted, LedgerReader
from tests.chaos import faults, training
from tests.chaos.base import Lost, NotHere, Outcome, Scenario, Verdict, tail
from tests.chaos.process import ROOT, Child, Hung, call
from tests.chaos.scenarios.rl import MODULE, make_model
from tests.rl import runs

DEADLINE_S = 900.0
STEPS = 2
KEYS_PER_STEP = 6
"""2 prompts x 3 samples."""


class SGLang(Scenario):
    """See the module's docstring."""

    name = "rl, sglang"
    kinds: ClassVar = {"server killed": 1, "server stopped": 1, "trainer killed": 1}
    preload = (*training.PRELOAD, "rl.worker", "rl.loop", "tests.rl.letters")

    def build(self) -> None:
        if not (ROOT / ".venv-sglang" / "bin" / "python").exists():
            raise NotHere("no SGLang (make sglang)")
        made = call(make_model, str(self.folder / "model"), log=self.folder / "log")
        if made.wait(DEADLINE_S):
            raise Lost(made.text())
        rollout = {"kind": "sglang", "probe_interval_s": 2.0, "probe_timeout_s": 8.0, "start_timeout_s": 600}
        self.config = runs.config(
            self.folder / "model",
            {"name": "grpo"},
            steps=STEPS,
            rollout=rollout,
            checkpoint={"every_steps": 1},
            sampling={"max_tokens": 100, "max_context_tokens": 512},
            timeout_s=600.0,
        )

    def inject(self, kind: str, rng: Random, folder: Path) -> Outcome:
        run = folder / "run"
        RunFolder.prepare(run, self.config)
        [child] = training.start(MODULE, run)
        self.until_playing(child, run, rng.randrange(1, KEYS_PER_STEP))
        server = servers(child)
        kept = keys(run)
        if kind == "trainer killed":
            child.send(signal.SIGKILL)
            child.wait(DEADLINE_S)
            self.none_left(server)
            [child] = training.start(MODULE, run)
        else:
            number = signal.SIGKILL if kind == "server killed" else signal.SIGSTOP
            for process in server:
                process.send_signal(number)
        if code := child.wait(DEADLINE_S):
            raise Lost(f"ended with {code}: {tail(child.text())}")
        self.judge(run, kept)
        self.none_left([*server, *servers(child)])
        return Outcome(Verdict.SAME, f"with {len(kept)} rollouts on record")

    def until_playing(self, child: Child, run: Path, episodes: int) -> None:
        end = time.monotonic() + DEADLINE_S
        while len(keys(run)) < episodes:
            if time.monotonic() > end:
                raise Hung("no rollout")
            if not faults.wait_then(child, 0.05):
                raise Lost(f"ended with {child.code}: {tail(child.text())}")

    def judge(self, run: Path, kept: dict[object, object]) -> None:
        with LedgerReader(run / "ledger") as reader:
            found = {r.key: r.episode for r in reader.episodes()}
            uses = Counter((u.key, u.context, u.component) for u in reader.consumed())
            reader.verify()
        if {k: e for k, e in found.items() if k in kept} != kept:
            raise Lost("a finished rollout was drawn again")
        per_step = Counter(key.step for key in found)
        if per_step != dict.fromkeys(range(STEPS), KEYS_PER_STEP):
            raise Lost(f"rollouts by step: {dict(per_step)}")
        if any(n > 1 for n in uses.values()):
            raise Lost("trained twice on one rollout")
        if [line["step"] for line in runs.metrics(run)] != list(range(STEPS)):
            raise Lost("a step is missing")

    def none_left(self, processes: list[psutil.Process]) -> None:
        _, alive = psutil.wait_procs(processes, timeout=60)
        if alive:
            raise Lost(f"{len(alive)} processes of the server outlive it")


def servers(child: Child) -> list[psutil.Process]:
    """Everything that the rollout server consists of."""
    return [p for p in child.children() if "sglang" in " ".join(p.cmdline())]


def keys(run: Path) -> dict[object, object]:
    """Rollouts on record."""
    if not (run / "ledger" / LEDGER_FILE).is_file():
        return {}
    with suppress(LedgerNotStarted), LedgerReader(run / "ledger") as reader:
        return {r.key: r.episode for r in reader.episodes()}
    return {}
