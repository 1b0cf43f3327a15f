"""A full-suite report (27 tasks × 200 episodes): time to write it, its size, time to open it in headless Chromium.

    python -m tests.bench.eval.bench_report [--tasks 27] [--episodes 200]

Bounds asked for: at most 20 MB, open (first transcript shown) in under 3 seconds. An empty page is opened beside it.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from pathlib import Path

from eval.report import EpisodeRecord, TranscriptRun, Transcripts, write_report
from tests.eval.browser import Page, browse
from tests.eval.test_report import latin, long_episode


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=27)
    parser.add_argument("--episodes", type=int, default=200)
    args = parser.parse_args()
    rng = random.Random(0)
    tasks = [f"task{t:02}" for t in range(args.tasks)]
    many = [EpisodeRecord(f"{t}-{i}", long_episode(rng, f"r{i}", t)) for t in tasks for i in range(args.episodes)]
    with tempfile.TemporaryDirectory() as folder:
        full, empty = Path(folder) / "full.html", Path(folder) / "empty.html"
        started = time.perf_counter()
        stats = write_report(full, "full", [Transcripts("T", [TranscriptRun("run", many, latin)])])
        seconds = time.perf_counter() - started
        print(f"write: {seconds:.1f} s, {stats.size_bytes / 1e6:.1f} MB, {stats.episodes_shown} episodes")
        write_report(empty, "empty", [])

        async def visit(page: Page) -> None:
            for path, ready in ((empty, "true"), (full, "document.querySelector('.detail .message') !== null")):
                begun = time.perf_counter()
                await page.open(path.as_uri())
                await page.until(ready)
                print(f"open {path.stem}: {time.perf_counter() - begun:.2f} s")

        browse(Path(folder) / "profile", visit)


if __name__ == "__main__":
    main()
