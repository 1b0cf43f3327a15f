"""Recall on seen and held-out phrasings, false positives on what people really wrote, and precision on a mix of both.

No pattern was changed for the held-out phrasings. Carriers of the injected phrasings and the clean turns are disjoint
halves of the same conversations: precision is for one clean human turn to each injected one.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from envs.detectors.base import DETECTORS, Context
from envs.detectors.rates import Rate
from tests.envs.detectors.seeds import HUMAN, SEEN, UNSEEN

SAMPLES = Path(__file__).resolve().parents[4] / "shared" / "data" / "benchmarks" / "mirrorbench"
NAME = "Dana"
ENGLISH = ("Hello, how are you today?",)


@dataclass(frozen=True)
class Turn:
    """What somebody really said, and what was said before."""

    text: str
    earlier: tuple[str, ...] = ()


@dataclass(frozen=True)
class Measured:
    """One detector. precision: found injected of all found, on the held-out mix."""

    detector: str
    seen: Rate
    held_out: Rate
    false_positives: Rate
    precision: Rate


def human_turns() -> list[Turn]:
    """User turns of real conversations where the samples are here, else a few of our own."""
    turns = [Turn(text) for text in HUMAN]
    for path in sorted(SAMPLES.glob("*_20.jsonl")):
        for line in path.read_text().splitlines():
            said: list[str] = []
            for turn in json.loads(line)["turns"]:
                if turn["role"] == "user":
                    turns.append(Turn(turn["content"], tuple(said)))
                said.append(turn["content"])
    return turns


def measure(detector: str, turns: Sequence[Turn]) -> Measured:
    """`turns` in two halves: carriers and clean ones."""
    carriers, clean = turns[::2], turns[1::2]
    seen = _injected(detector, SEEN[detector], carriers)
    held_out = _injected(detector, UNSEEN[detector], carriers)
    false = sum(_found(detector, turn.text, turn) for turn in clean)
    matched = round(false / len(clean) * held_out.n)
    return Measured(detector, seen, held_out, Rate(false, len(clean)), Rate(held_out.k, held_out.k + matched))


def all_measured() -> list[Measured]:
    """Every detector that has phrasings."""
    turns = human_turns()
    return [measure(name, turns) for name in UNSEEN]


def _injected(detector: str, phrasings: Sequence[str], carriers: Sequence[Turn]) -> Rate:
    """Each phrasing before, between and after real turns; carriers go round."""
    hits = total = 0
    for number, phrasing in enumerate(phrasings):
        for place in range(3):
            one, two = (carriers[(number * 3 + place + shift) % len(carriers)] for shift in (0, 7))
            lines = [one.text, two.text]
            lines.insert(place, phrasing)
            # Narration stands alone: with "I" around it, it is speech.
            text = phrasing if detector == "self_narration" else "\n".join(lines)
            hits += _found(detector, text, one)
            total += 1
    return Rate(hits, total)


def _found(detector: str, text: str, turn: Turn) -> bool:
    return DETECTORS[detector](Context(text, NAME, earlier=turn.earlier, given=ENGLISH)) is not None


def main() -> None:
    """The table of docs/benchmarks.md: python -m tests.envs.detectors.measure"""
    print(f"{len(human_turns())} human turns, half of them carriers")
    print("| detector | recall, seen | recall, held out | false positives | precision |")
    print("| --- | --- | --- | --- | --- |")
    for m in all_measured():
        cells = (_cell(m.seen), _cell(m.held_out), _cell(m.false_positives), _cell(m.precision))
        print(f"| {m.detector} | {' | '.join(cells)} |")


def _cell(rate: Rate) -> str:
    low, high = rate.interval
    return f"{rate.k}/{rate.n} = {rate.value:.3f} [{low:.3f}, {high:.3f}]"


if __name__ == "__main__":
    main()
