"""Something a run noticed, and what it does about it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from common.errors import GateError
from rl.watch.config import Action


@dataclass(frozen=True)
class Alarm:
    """What was noticed, and what follows from it."""

    text: str
    action: Action


def detector_alarms(rates: Mapping[str, float], bounds: Mapping[str, float]) -> list[Alarm]:
    """Detectors whose share of turns exceeds the configured bound. rates: by detector."""
    return [
        Alarm(f"{name} in {rates[name]:.1%} of turns, the bound is {bound:.1%}", "stop")
        for name, bound in bounds.items()
        if rates.get(name, 0.0) > bound
    ]


def raise_stops(alarms: Sequence[Alarm], *, where: str) -> None:
    """Raise GateError with every alarm that is to stop the run."""
    if stops := [a.text for a in alarms if a.action == "stop"]:
        raise GateError(
            "; ".join(stops),
            where=where,
            fix="read this step's episodes (osim view); what is trained is saved: change `watch` and run again",
        )
