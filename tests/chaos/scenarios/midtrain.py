"""Midtraining killed and frozen: the resumed run has the undisturbed losses and weights, bit for bit."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from random import Random
from typing import ClassVar

from common.files import repair_jsonl_tail
from tests.chaos import faults, training
from tests.chaos.base import Lost, Outcome, Scenario, Verdict, require_refusal, require_same, tail
from tests.chaos.process import Child, Hung, execute
from tests.megatron_osim.corpus import make_corpus

MODULE = "megatron_osim.worker"
SEQUENCE_LENGTH, STEPS, EVERY = 128, 12, 3
DEADLINE_S = 300.0
COLLECTIVE_S = 20.0
MODEL = {
    "vocab_size": 300,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 256,
    "initializer_range": 0.06,
}


class Midtrain(Scenario):
    """See the module's docstring."""

    name = "midtrain"
    kinds: ClassVar = {
        "kill -9": 6,
        "kill -9 of one of two ranks": 2,
        "one of two ranks stopped": 2,
        "full disk": 2,
        "torn metrics": 2,
        "osim midtrain, any process": 2,
        "osim midtrain, two at once": 1,
    }
    preload = training.PRELOAD
    steps: ClassVar[int] = STEPS

    def build(self) -> None:
        from megatron_osim.config import CheckpointConfig, MidtrainConfig, OptimizerConfig

        (self.folder / "corpus").mkdir()
        corpus = make_corpus(self.folder / "corpus", sequence_length=SEQUENCE_LENGTH, rows=60)
        sources = [{"name": n, "prefixes": [p]} for n, p in (("train", corpus.train), ("other", corpus.other))]
        fields = {
            "architecture": MODEL,
            "tokenizer": corpus.tokenizer,
            "data": {"sources": sources, "validation": sources[1:], "sequence_length": SEQUENCE_LENGTH},
            "optimizer": OptimizerConfig(lr=1e-3, warmup_steps=3),
            "checkpoint": CheckpointConfig(every_steps=EVERY, keep_last=3),
            "steps": self.steps,
            "global_batch": 2,
            "validate_every": 6,
        }
        self.configs = {n: MidtrainConfig.model_validate(fields | {"parallel": {"tensor": n}}) for n in (1, 2)}
        self.truth = {}
        self.seconds = {}
        for ranks in self.needs_ranks():
            run = self.folder / f"whole-{ranks}"
            began = time.monotonic()
            self.finish(self.new(run, ranks), ranks)
            self.seconds[ranks] = time.monotonic() - began
            self.truth[ranks] = training.midtrain_facts(run)

    def needs_ranks(self) -> tuple[int, ...]:
        return (1, 2)

    def new(self, run: Path, ranks: int) -> Path:
        training.new_run(run, self.configs[ranks])
        return run

    def finish(self, run: Path, ranks: int) -> None:
        """Run to the end; it must succeed."""
        for child in training.start(MODULE, run, ranks):
            if code := child.wait(DEADLINE_S):
                raise Lost(f"ended with {code}:\n{tail(child.text())}")

    def resumed(self, run: Path, ranks: int) -> None:
        repair_jsonl_tail(run / "metrics.jsonl")  # what RunFolder.lock does in the command
        self.finish(run, ranks)
        require_same(training.differing(training.midtrain_facts(run), self.truth[ranks]))

    def inject(self, kind: str, rng: Random, folder: Path) -> Outcome:
        ways = {
            "kill -9": self.killed,
            "kill -9 of one of two ranks": self.one_of_two,
            "one of two ranks stopped": self.one_of_two,
            "full disk": self.full_disk,
            "torn metrics": self.torn_metrics,
            "osim midtrain, any process": self.command,
            "osim midtrain, two at once": self.command,
        }
        return ways[kind](kind, rng, folder / "run")

    def killed(self, kind: str, rng: Random, run: Path) -> Outcome:
        [child] = training.start(MODULE, self.new(run, 1))
        faults.wait_then(child, rng.uniform(0.2, 1.0) * self.seconds[1])
        child.end()
        step = len(list((run / "checkpoints").glob("step-*"))) * EVERY
        self.resumed(run, 1)
        return Outcome(Verdict.SAME, f"after the checkpoint of step {step}")

    def one_of_two(self, kind: str, rng: Random, run: Path) -> Outcome:
        """The other rank must notice within the deadline of its collectives."""
        ranks = training.start(MODULE, self.new(run, 2), 2, timeout_s=COLLECTIVE_S)
        hit = rng.randrange(2)
        faults.wait_then(ranks[hit], rng.uniform(0.3, 0.95) * self.seconds[2])
        ranks[hit].send(signal.SIGKILL if kind.startswith("kill") else signal.SIGSTOP)
        code = ranks[1 - hit].wait(6 * COLLECTIVE_S)
        for child in ranks:
            child.end()
        self.resumed(run, 2)
        return Outcome(Verdict.SAME, f"rank {hit}; the other one ended with {code}")

    def full_disk(self, kind: str, rng: Random, run: Path) -> Outcome:
        """Metrics or checkpoints do not fit."""
        size = sum(p.stat().st_size for p in (self.folder / "whole-1").rglob("*") if p.is_file())
        with faults.small_disk(run, int(size * rng.uniform(0.1, 0.8))):
            try:
                [child] = training.start(MODULE, self.new(run, 1))
                code = child.wait(DEADLINE_S)
                if code == 0:
                    raise Lost("ended with 0 on a disk that is too small")
                said = require_refusal(child)
            except OSError as e:
                said = f"no run folder: {e}"
            child.end()
            faults.resize(run, 8 * size)
            self.resumed(run, 1)
        return Outcome(Verdict.REFUSED, said)

    def torn_metrics(self, kind: str, rng: Random, run: Path) -> Outcome:
        """A power cut leaves half a line of metrics."""
        [child] = training.start(MODULE, self.new(run, 1))
        faults.wait_then(child, rng.uniform(0.5, 0.9) * self.seconds[1])
        child.end()
        if (run / "metrics.jsonl").exists():
            with (run / "metrics.jsonl").open("ab") as f:
                f.write(b'{"step": 3, "phase": "midtr' + rng.randbytes(rng.randrange(30)).replace(b"\n", b""))
        self.resumed(run, 1)
        return Outcome(Verdict.SAME)

    def command(self, kind: str, rng: Random, run: Path) -> Outcome:
        """The real command with two ranks: a kill of any of its three processes, or a second command."""
        import yaml

        recipe = run.parent / "recipe.yaml"
        recipe.write_text(yaml.safe_dump(self.configs[2].model_dump(mode="json", exclude_defaults=True)))
        arguments = ["midtrain", "--recipe", recipe, "--ranks", 2, "--out", run]

        def go(number: int = 1) -> Child:
            return execute(*arguments, log=run.parent / f"log{number}")

        first = go()
        if kind.endswith("two at once"):
            time.sleep(rng.uniform(0, 1.0))
            second = go(2)
            ended = [child.wait(DEADLINE_S) for child in (first, second)]
            if sorted(ended) != [0, 2]:
                raise Lost(f"ended with {ended}: {tail(first.text())} {tail(second.text())}")
            said = require_refusal(first if first.code else second)
            require_same(training.differing(training.midtrain_facts(run), self.truth[2]))
            return Outcome(Verdict.REFUSED, said)
        faults.wait_then(first, rng.uniform(0.5, 2.5) * max(10.0, self.seconds[2]))
        hit = faults.signal_one(first, rng, signal.SIGKILL)
        code = first.wait(DEADLINE_S)
        self.orphans_end(first)
        again = go()
        if again.wait(DEADLINE_S):
            raise Lost(f"the resumed command ended with {again.code}: {tail(again.text())}")
        require_same(training.differing(training.midtrain_facts(run), self.truth[2]))
        return Outcome(Verdict.SAME, f"{hit}; the command ended with {code}")

    def orphans_end(self, command: Child) -> None:
        """Ranks whose command is gone stop by themselves."""
        end = time.monotonic() + DEADLINE_S
        while any(p.is_running() and p.status() != "zombie" for p in command.children()):
            if time.monotonic() > end:
                raise Hung("ranks outlive the command that started them")
            time.sleep(0.1)
