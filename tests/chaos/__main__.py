"""`python -m tests.chaos [--scenario NAME] [--kind KIND] [--faults N] [--index I] [--seed S] [--out DIR]`.

Injects seeded faults into real runs, judges each, prints the table, and writes it as DIR/chaos.md and DIR/chaos.json.
Exit code 1 when something was lost or hung.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from pathlib import Path


def main() -> int:
    # Inside: the product's spawned workers import this module again, and should find it light.
    from tests.chaos.report import markdown, write
    from tests.chaos.runner import Plan, run
    from tests.chaos.scenarios import ALL

    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    names = [s.name for s in ALL]
    parser.add_argument("--scenario", action="append", choices=names, help="only this one; repeat it")
    parser.add_argument("--kind", action="append", help="only faults of this kind; repeat it")
    parser.add_argument("--faults", type=int, help="of each kind, instead of the scenario's own number")
    parser.add_argument("--index", type=int, help="only the fault with this number: to repeat a failure")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/chaos"))
    parser.add_argument("--keep", action="store_true", help="keep the folders of lost and hung trials in OUT")
    parser.add_argument("--work", type=Path, help="folder for the runs (default: a temporary one)")
    options = parser.parse_args()
    chosen = [s for s in ALL if options.scenario is None or s.name in options.scenario]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # ends what it started
    plan = Plan(options.seed, options.faults, tuple(options.kind or ()), options.index)
    with tempfile.TemporaryDirectory(prefix="osim-chaos-", dir=options.work) as work:
        trials = []
        kept = options.out / "failed" if options.keep else None
        for trial in run(chosen, plan, Path(work), kept=kept):
            trials.append(trial)
            write(trials, options.out)  # a run that is cut off keeps what it has
    print(markdown(trials))
    return 1 if any(t.failed for t in trials) else 0


if __name__ == "__main__":
    sys.exit(main())
