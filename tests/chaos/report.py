"""The table of a run: as Markdown for people, as JSON for programs.

`python -m tests.chaos.report A/chaos.json B/chaos.json --out DIR` joins the parts of a run that was made in parts.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from common.files import read_json, write_json, write_text
from tests.chaos.base import Verdict
from tests.chaos.runner import Trial

COLUMNS = ("scenario", "fault", "tried", *(v.value for v in Verdict), "seconds")


def rows(trials: Sequence[Trial]) -> list[tuple[object, ...]]:
    """One per scenario and kind, in order of appearance; then the sum."""
    groups: dict[tuple[str, str], list[Trial]] = {}
    for trial in trials:
        groups.setdefault((trial.scenario, trial.kind), []).append(trial)
    return [(*key, *_counts(of)) for key, of in groups.items()] + [("all", "", *_counts(trials))]


def _counts(trials: Sequence[Trial]) -> tuple[object, ...]:
    tried = [t for t in trials if t.verdict is not None]
    seconds = sum(t.seconds for t in trials)
    return (len(tried), *(sum(t.verdict is v for t in tried) for v in Verdict), f"{seconds:.0f}")


def markdown(trials: Sequence[Trial]) -> str:
    """The table, then what failed with the command that repeats it, then what could not be tried here."""
    lines = [COLUMNS, ("---",) * len(COLUMNS), *rows(trials)]
    text = "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines) + "\n"
    for trial in (t for t in trials if t.failed):
        text += f"\n{trial.verdict}: `{trial.command}`\n\n    " + trial.detail.replace("\n", "\n    ") + "\n"
    missing = dict.fromkeys((t.scenario, t.kind, t.detail) for t in trials if t.verdict is None)
    for scenario, kind, why in missing:
        text += f"\nnot tried here: {scenario}, {kind}: {why}\n"
    return text


def write(trials: Sequence[Trial], folder: Path) -> None:
    """FOLDER/chaos.md and FOLDER/chaos.json."""
    write_text(folder / "chaos.md", markdown(trials))
    write_json(folder / "chaos.json", [asdict(t) for t in trials])


def read(path: Path) -> list[Trial]:
    """What `write` wrote."""
    return [Trial(**{**t, "verdict": t["verdict"] and Verdict(t["verdict"])}) for t in read_json(path)]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.report", description=__doc__)
    parser.add_argument("parts", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, default=Path("runs/chaos"))
    options = parser.parse_args()
    trials = [trial for part in options.parts for trial in read(part)]
    write(trials, options.out)
    print(markdown(trials))


if __name__ == "__main__":
    main()
