"""Progress of long work: a live bar at a terminal, one line a minute anywhere else.

Runs in the process of the command. Only shows; nothing depends on it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import orjson

LINE_EVERY_S = 60.0
Update = Callable[[float, float, str], None]
"""(done, total, note)"""


@contextmanager
def show(title: str, *, every_s: float = LINE_EVERY_S) -> Iterator[Update]:
    """Give a function to call with (done, total, note) as often as wished."""
    if sys.stderr.isatty():
        with _bar(title) as update:
            yield update
    else:
        yield _lines(title, every_s)


@contextmanager
def _bar(title: str) -> Iterator[Update]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TextColumn("{task.fields[note]}"), console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=None, note="")

        def update(done: float, total: float, note: str) -> None:
            bar.update(task, completed=done, total=total or None, note=note)

        yield update


def _lines(title: str, every_s: float) -> Update:
    started = last = time.monotonic()

    def update(done: float, total: float, note: str) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < every_s:
            return
        last = now
        of = f" {done:g}/{total:g}" if total else ""
        print(f"  {title}{of} {note} ({now - started:.0f} s)", file=sys.stderr, flush=True)

    return update


class MetricsTail:
    """Follows a run's metrics.jsonl and tells a progress display how far it is."""

    def __init__(self, metrics: Path, phase: str, total: int, update: Update, *, every_s: float = 0.5) -> None:
        self._metrics, self._phase, self._total, self._update, self._every_s = metrics, phase, total, update, every_s
        self._offset = 0
        self._next = 0.0
        self._step = 0
        self._note = "starting"

    def poll(self) -> None:
        """Read what was appended since the last call (at most every `every_s`)."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + self._every_s
        for line in self._new_lines():
            if line.get("phase") == self._phase and isinstance(line.get("step"), int):
                self._step = line["step"]
                shown = {k: v for k, v in line.items() if k in ("loss", "reward/mean", "lr") and isinstance(v, float)}
                self._note = ", ".join(f"{k} {v:.4g}" for k, v in shown.items())
        self._update(self._step, self._total, self._note)

    def _new_lines(self) -> Iterator[dict[str, Any]]:
        if not self._metrics.exists():
            return
        with self._metrics.open("rb") as f:
            f.seek(self._offset)
            for line in f:
                if not line.endswith(b"\n"):
                    return
                self._offset += len(line)
                with suppress(orjson.JSONDecodeError):  # only shown
                    if isinstance(record := orjson.loads(line), dict):
                        yield record
