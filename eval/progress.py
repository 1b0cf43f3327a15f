"""Progress of a running evaluation: one line per task, for a terminal, a log, and the viewer (RUN/progress.json).

Only shows; nothing depends on it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter
from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from common.errors import DataError, data_errors
from common.files import RESTORE, read_json_object, write_json
from common.run_folder import RunFolder
from eval.run import Progress

PROGRESS_FILE = "progress.json"
WRITE_EVERY_S = 2.0
LINE_EVERY_S = 60.0


class ProgressFile:
    """Keeps RUN/progress.json up to date for `osim view`; atomic, at most one write in WRITE_EVERY_S.

    Made by the owner of the folder: the file of an evaluation that was killed goes at once.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / PROGRESS_FILE
        self._tasks: dict[str, Progress] = {}
        self._written = 0.0
        self.remove()

    def update(self, progress: Progress) -> None:
        self._tasks[progress.task] = progress
        finished = all(p.done + p.unscored >= p.planned for p in self._tasks.values())
        if finished or time.monotonic() - self._written > WRITE_EVERY_S:
            self._written = time.monotonic()
            lines = [asdict(p) for p in self._tasks.values()]
            write_json(self._path, {"time": time.time(), "tasks": lines})

    def remove(self) -> None:
        """Nothing is under way."""
        self._path.unlink(missing_ok=True)


@dataclass(frozen=True)
class LastProgress:
    """What an evaluation last said, and when. `running`: a process holds its folder; if not, it was killed."""

    tasks: tuple[Progress, ...]
    age_s: float
    running: bool


def read_progress(folder: Path) -> LastProgress | None:
    """What the evaluation in a folder last said; None where none is under way or was killed."""
    try:
        with data_errors(str(folder / PROGRESS_FILE), fix=RESTORE):
            found = read_json_object(folder / PROGRESS_FILE)
            tasks = TypeAdapter(tuple[Progress, ...]).validate_python(found["tasks"])
            age_s = time.time() - float(found["time"])
    except DataError:
        # Gone, or of another version: the page is shown without it.
        return None
    return LastProgress(tasks, age_s, RunFolder(folder).owner() is not None)


@contextmanager
def board(*, every_s: float = LINE_EVERY_S) -> Iterator[Callable[[Progress], None]]:
    """A live table at a terminal; a block of lines a minute anywhere else."""
    if sys.stderr.isatty():
        with _table() as update:
            yield update
    else:
        yield _Lines(every_s).update


@contextmanager
def _table() -> Iterator[Callable[[Progress], None]]:
    tasks: dict[str, Progress] = {}
    with Live(console=Console(stderr=True), refresh_per_second=4, transient=True) as live:

        def update(progress: Progress) -> None:
            tasks[progress.task] = progress
            live.update(_rich_table(list(tasks.values())))

        yield update


def _rich_table(tasks: list[Progress]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("task", "", "scored", "mean", "coverage", "unscored", "cost"):
        table.add_column(name, justify="left" if name in ("task", "") else "right")
    for p in tasks:
        bar = ProgressBar(total=p.planned, completed=p.done + p.unscored, width=24)
        table.add_row(p.task, bar, f"{p.done}/{p.planned}", *cells(p))
    etas = [p.eta_s for p in tasks if p.eta_s is not None]
    limits = [p.in_flight_limit for p in tasks]
    note = f"{limits[-1]} in flight at most" + (f" · about {etas[-1]:.0f} s left" if etas else "")
    table.caption, table.caption_justify = note, "left"
    return table


def cells(p: Progress) -> tuple[str, str, str, str]:
    """Mean, coverage, unscored and cost as text."""
    mean = f"{p.mean:.3f} ± {p.half_width:.3f}" if p.mean is not None and p.half_width is not None else "–"
    coverage = f"{p.coverage:.1%}" if p.coverage is not None else "–"
    return mean, coverage, str(p.unscored), f"${p.cost_usd:.2f}" if p.cost_usd else "–"


class _Lines:
    """Every task that moved since the last block, once in `every_s`."""

    def __init__(self, every_s: float) -> None:
        self._every_s = every_s
        self._last = time.monotonic()
        self._moved: dict[str, Progress] = {}

    def update(self, progress: Progress) -> None:
        self._moved[progress.task] = progress
        if time.monotonic() - self._last < self._every_s:
            return
        self._last = time.monotonic()
        for one in self._moved.values():
            print(f"  {one.line()}", file=sys.stderr, flush=True)
        self._moved.clear()
