"""Builds the scenarios, injects their faults one after the other, and turns what happens into trials."""

from __future__ import annotations

import shutil
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

from common.seeds import derive_rng
from tests.chaos.base import Hung, Lost, NotHere, Scenario, Verdict
from tests.chaos.process import Child, preload


@dataclass(frozen=True)
class Plan:
    """Which faults of the chosen scenarios."""

    seed: int = 0
    faults: int | None = None
    """Of each kind; None: what the scenario says."""
    kinds: tuple[str, ...] = ()
    index: int | None = None

    def of(self, scenario: type[Scenario]) -> Iterator[tuple[str, int]]:
        """(kind, number) of every fault."""
        for kind, usual in scenario.kinds.items():
            if self.kinds and kind not in self.kinds:
                continue
            for index in range(usual if self.faults is None else self.faults):
                if self.index is None or index == self.index:
                    yield kind, index


@dataclass(frozen=True)
class Trial:
    """One injected fault and its outcome; verdict None when this machine cannot inject it."""

    scenario: str
    kind: str
    index: int
    seed: int
    verdict: Verdict | None
    seconds: float
    detail: str

    @property
    def failed(self) -> bool:
        return self.verdict in (Verdict.LOST, Verdict.HUNG)

    @property
    def command(self) -> str:
        """Repeats it."""
        return (
            f"python -m tests.chaos --scenario {quote(self.scenario)} --kind {quote(self.kind)} "
            f"--index {self.index} --seed {self.seed}"
        )


def run(
    scenarios: Sequence[type[Scenario]], plan: Plan, work: Path, *, kept: Path | None = None, say: bool = True
) -> Iterator[Trial]:
    """Every fault of the plan, as it is judged. Folders of failed trials are moved to `kept`, where it is given."""
    preload([module for scenario in scenarios for module in scenario.preload])
    for kind_of in scenarios:
        faults = list(plan.of(kind_of))
        if not faults:
            continue
        scenario = kind_of(work / kind_of.name)
        try:
            started = time.monotonic()
            try:
                scenario.build()
            except NotHere as e:
                yield from (Trial(scenario.name, k, i, plan.seed, None, 0.0, str(e)) for k, i in faults)
                continue
            if say:
                print(f"{scenario.name}: undisturbed run in {time.monotonic() - started:.1f} s", flush=True)
            for kind, index in faults:
                trial = _trial(scenario, kind, index, plan.seed, kept)
                if say:
                    verdict = trial.verdict or "not tried"
                    print(f"  {kind} {index}: {verdict} in {trial.seconds:.1f} s: {trial.detail[:300]}", flush=True)
                    if trial.failed:
                        print(f"  {trial.detail}\n  repeat: {trial.command}", flush=True)
                yield trial
        finally:
            scenario.close()
            Child.end_all()


def _trial(scenario: Scenario, kind: str, index: int, seed: int, kept: Path | None) -> Trial:
    folder = scenario.folder / "trials" / f"{kind.replace(' ', '-')}-{index}"
    folder.mkdir(parents=True)
    started = time.monotonic()
    try:
        outcome = scenario.inject(kind, derive_rng(seed, scenario.name, kind, index), folder)
        verdict, detail = outcome.verdict, outcome.detail
    except NotHere as e:
        verdict, detail = None, str(e)
    except Hung as e:
        verdict, detail = Verdict.HUNG, str(e)
    except Lost as e:
        verdict, detail = Verdict.LOST, str(e)
    except Exception:  # noqa: BLE001 - a product error that reaches the injector is a lost run, whatever its type
        verdict, detail = Verdict.LOST, traceback.format_exc()
    finally:
        Child.end_all(lasting=False)
    seconds = time.monotonic() - started
    if kept is not None and verdict in (Verdict.LOST, Verdict.HUNG):
        target = kept / f"{scenario.name}-{folder.name}"
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(folder, target, symlinks=True)
    shutil.rmtree(folder, ignore_errors=True)
    return Trial(scenario.name, kind, index, seed, verdict, seconds, detail)
