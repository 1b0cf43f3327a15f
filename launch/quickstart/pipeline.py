"""Stages of a run that are each done once: the resume logic of `osim quickstart`.

Runs in the process of the command. A stage owns one folder RUN/NAME. When it is complete, an atomic marker
RUN/NAME/stage.json records the hash of what it was made from (its configuration and the markers of the stages it
builds on) and its summary. Invariants (tests/launch/test_pipeline.py):

* a stage whose marker holds the present hash is never run again, and says so;
* a stage without marker is run; what its folder holds is the stage's own to resume;
* a marker of other inputs is refused work: the folder is cleared and the stage is run again.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import data_errors
from common.files import hash_json, read_json_object, write_json

MARKER = "stage.json"
Summary = Mapping[str, str]
"""What a stage says of itself in the final table."""


@dataclass(frozen=True)
class Stage:
    """One step of the pipeline. `inputs` is plain data; `after` names the stages whose output it reads."""

    name: str
    title: str
    run: Callable[[], Summary]
    """Makes the stage's output in its folder, RUN/NAME, which exists; resumes what it finds there."""
    inputs: Any = None
    after: tuple[str, ...] = ()


@dataclass(frozen=True)
class Done:
    """A completed stage."""

    name: str
    title: str
    summary: Summary
    seconds: float
    repeated_nothing: bool
    """It was complete before this command."""


@dataclass
class Pipeline:
    """Runs stages in order inside one run folder."""

    folder: Path
    stages: Sequence[Stage]
    say: Callable[[str], None] = print

    def hashes(self) -> dict[str, str]:
        """By stage, of everything that it is made from."""
        found: dict[str, str] = {}
        for stage in self.stages:
            found[stage.name] = hash_json([stage.name, stage.inputs, [found[name] for name in stage.after]])
        return found

    def run(self) -> list[Done]:
        """Run what is not complete; give all stages with their summaries."""
        hashes = self.hashes()
        labels = [f"[{n}/{len(self.stages)}] {stage.title}" for n, stage in enumerate(self.stages, 1)]
        return [self._step(s, hashes[s.name], label) for s, label in zip(self.stages, labels, strict=True)]

    def _step(self, stage: Stage, made_from: str, label: str) -> Done:
        folder = self.folder / stage.name
        marker = folder / MARKER
        # What an earlier, unfinished attempt was made from; a stage never resumes on other inputs.
        begun = folder / f".{MARKER}.begun"
        known = _hash_in(marker) or _hash_in(begun)
        if _hash_in(marker) == made_from:
            with data_errors(str(marker), fix=f"remove {folder}: the stage is then repeated"):
                record = read_json_object(marker)
                done = Done(
                    stage.name,
                    stage.title,
                    dict(record["summary"]),
                    float(record["seconds"]),
                    repeated_nothing=True,
                )
            self.say(f"{label}: done before, not repeated")
            return done
        if known is not None and known != made_from:
            self.say(f"{label}: its inputs have changed, made again")
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_json(begun, {"hash": made_from})
        self.say(f"{label} …")
        started = time.monotonic()
        summary = dict(stage.run())
        seconds = time.monotonic() - started
        write_json(marker, {"hash": made_from, "summary": summary, "seconds": seconds})
        facts = ", ".join(f"{k} {v}" for k, v in summary.items())
        self.say(f"    {seconds:.0f} s · {facts}")
        return Done(stage.name, stage.title, summary, seconds, repeated_nothing=False)


def _hash_in(marker: Path) -> str | None:
    if not marker.exists():
        return None
    with data_errors(str(marker), fix=f"remove {marker.parent}: the stage is then repeated"):
        return str(read_json_object(marker)["hash"])
