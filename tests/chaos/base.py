"""What a scenario is, and how the outcome of a fault is judged.

A fault is `same` when the resumed run gives the undisturbed result, `refused` when there was one clear typed error
(exit code 2, 3 or 4, naming the fix, no traceback) and nothing that existed was damaged, `hung` past its deadline,
and `lost` in every other case.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from random import Random
from typing import ClassVar

from common.errors import ExitCode
from tests.chaos.process import Child, Hung

REFUSALS = (ExitCode.USAGE, ExitCode.GATE, ExitCode.INTERRUPTED)


class Verdict(StrEnum):
    """What became of a run that a fault hit."""

    SAME = "same"
    REFUSED = "refused"
    LOST = "lost"
    HUNG = "hung"


class Lost(Exception):
    """The outcome is neither the undisturbed result nor a clear refusal."""


class NotHere(Exception):
    """This machine cannot inject this fault (no mount, no libfaketime, no SGLang)."""


@dataclass(frozen=True)
class Outcome:
    """Verdict with what was seen, for the reader of a failure."""

    verdict: Verdict
    detail: str = ""


class Scenario(ABC):
    """A real run that can be disturbed. `kinds` gives the faults and how many of each a full run injects."""

    name: ClassVar[str]
    kinds: ClassVar[Mapping[str, int]]
    preload: ClassVar[tuple[str, ...]] = ()
    """Modules that its processes need, imported once before they are forked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    @abstractmethod
    def build(self) -> None:
        """The undisturbed run, once."""

    @abstractmethod
    def inject(self, kind: str, rng: Random, folder: Path) -> Outcome:
        """One fault on a run in the empty `folder`. Raises Lost, Hung or NotHere."""

    def close(self) -> None:  # noqa: B027 - most have nothing to end
        """End what `build` started."""


def require_same(difference: str) -> None:
    """Raise Lost unless `difference` is empty."""
    if difference:
        raise Lost(difference)


def require_refusal(child: Child) -> str:
    """The text of a clear refusal by an ended process; Lost when it is not one."""
    code, text = child.code, child.text()
    if code not in REFUSALS:
        raise Lost(f"ended with {code}:\n{tail(text)}")
    at = max(text.rfind("\nerror: "), 0 if text.startswith("error: ") else -1)
    if at < 0 or "fix:" not in text[at:] or "Traceback" in text[at:]:
        raise Lost(f"exit code {code} without one clear error:\n{tail(text)}")
    return " ".join(text[at:].split())


def resumed(start: Callable[[], Child], deadline_s: float, difference: Callable[[], str]) -> None:
    """Run again without the fault: it must end with 0 and the undisturbed result."""
    child = start()
    code = child.wait(deadline_s)
    if code != 0:
        raise Lost(f"the resumed run ended with {code}:\n{tail(child.text())}")
    require_same(difference())


def after_fault(
    disturbed: Child, start: Callable[[], Child], deadline_s: float, difference: Callable[[], str], *, killed: bool
) -> Outcome:
    """Judge a disturbed run that ends by itself or was killed, and resume it."""
    code = disturbed.wait(deadline_s)
    if code == 0:
        require_same(difference())
        return Outcome(Verdict.SAME, "went on")
    said = "" if killed else require_refusal(disturbed)
    resumed(start, deadline_s, difference)
    return Outcome(Verdict.SAME if killed else Verdict.REFUSED, said or "resumed")


def refusals_of_two(first: Child, second: Child, deadline_s: float) -> list[str]:
    """What those said that were refused, of two runs at the same moment. At least one must end well."""
    ended = [child.wait(deadline_s) for child in (first, second)]
    if 0 not in ended:
        raise Lost(f"both ended with {ended}: {first.text()} {second.text()}")
    return [require_refusal(child) for child in (first, second) if child.code]


def tail(text: str, lines: int = 12) -> str:
    """The last lines."""
    return "\n".join(text.splitlines()[-lines:])


__all__ = [
    "Child",
    "Hung",
    "Lost",
    "NotHere",
    "Outcome",
    "Scenario",
    "Verdict",
    "after_fault",
    "require_refusal",
    "require_same",
    "resumed",
    "tail",
]
